#include "tools/sim/report.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/sim/memory.h"

void report_init(struct report *report, const char *scenario, uint64_t seed, bool json, const char *columns)
{
    *report = (struct report){.scenario = scenario, .seed = seed, .json = json};
    while (*columns && report->column_count < REPORT_COLUMNS) {
        report->columns[report->column_count++] = columns;
        columns += strcspn(columns, " ");
        columns += *columns == ' ';
    }
}

void report_release(struct report *report)
{
    free(report->cells);
}

static int name_len(const struct report *report, size_t column)
{
    return (int)strcspn(report->columns[column], " ");
}

void report_row(struct report *report)
{
    report->cells = memory_grow(report->cells, &report->row_cap, report->row_count + 1, sizeof *report->cells);
    memset(&report->cells[report->row_count++], 0, sizeof *report->cells);
    report->column = 0;
}

static char *next_cell(struct report *report)
{
    return report->cells[report->row_count - 1][report->column++];
}

void report_count(struct report *report, unsigned long long value)
{
    snprintf(next_cell(report), REPORT_CELL, "%llu", value);
}

void report_number(struct report *report, double value, int digits)
{
    snprintf(next_cell(report), REPORT_CELL, "%.*f", digits, value);
}

static void __attribute__((format(printf, 2, 0))) add_note(struct report *report, const char *format, va_list args)
{
    size_t room = sizeof report->notes - report->notes_len;
    int written = vsnprintf(report->notes + report->notes_len, room, format, args);
    if (written > 0)
        report->notes_len += (size_t)written < room ? (size_t)written : room - 1;
}

static void __attribute__((format(printf, 2, 3))) note(struct report *report, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    add_note(report, format, args);
    va_end(args);
}

void report_note(struct report *report, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    add_note(report, format, args);
    va_end(args);
    note(report, "\n");
}

void report_target(struct report *report, bool reached, const char *format, ...)
{
    va_list args;
    note(report, "%s: ", reached ? "reached" : "NOT REACHED");
    va_start(args, format);
    add_note(report, format, args);
    va_end(args);
    note(report, "\n");
}

static int width_of(const struct report *report, size_t column)
{
    int width = name_len(report, column);
    for (size_t row = 0; row < report->row_count; row++)
        if ((int)strlen(report->cells[row][column]) > width)
            width = (int)strlen(report->cells[row][column]);
    return width;
}

static void print_text(const struct report *report)
{
    printf("%s\n\n", report->scenario);
    for (size_t column = 0; column < report->column_count; column++)
        printf("%*.*s  ", width_of(report, column), name_len(report, column), report->columns[column]);
    printf("\n");
    for (size_t row = 0; row < report->row_count; row++) {
        for (size_t column = 0; column < report->column_count; column++)
            printf("%*s  ", width_of(report, column), report->cells[row][column]);
        printf("\n");
    }
    printf("\n%s", report->notes);
}

static void print_json(const struct report *report)
{
    printf("{\"scenario\": \"%s\", \"seed\": %llu, \"rows\": [", report->scenario, (unsigned long long)report->seed);
    for (size_t row = 0; row < report->row_count; row++) {
        printf("%s\n  {", row > 0 ? "," : "");
        for (size_t column = 0; column < report->column_count; column++) {
            const char *cell = report->cells[row][column];
            printf("%s\"%.*s\": %s", column > 0 ? ", " : "", name_len(report, column), report->columns[column],
                   *cell ? cell : "null");
        }
        printf("}");
    }
    printf("],\n \"notes\": [");
    for (const char *line = report->notes; *line;) {
        size_t len = strcspn(line, "\n");
        printf("%s\n  \"%.*s\"", line > report->notes ? "," : "", (int)len, line);
        line += len + (line[len] == '\n');
    }
    printf("]}\n");
}

void report_print(const struct report *report)
{
    if (report->json)
        print_json(report);
    else
        print_text(report);
    fflush(stdout);
}
