#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/id.h"
#include "node/base/log.h"
#include "tools/cmig/cmig.h"

#define COLUMNS_MAX 12
#define CELL_SIZE 512

void show_json(const json_t *value)
{
    if (value)
        json_dumpf(value, stdout, JSON_COMPACT);
    putchar('\n');
}

const char *show_bytes(uint64_t bytes, char text[SHOW_SIZE])
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
    if (bytes < 1024) {
        snprintf(text, SHOW_SIZE, "%u B", (unsigned)bytes);
        return text;
    }
    double value = (double)bytes / 1024;
    size_t unit = 0;
    /* 1023.95 would be printed as 1024.0 */
    for (; value >= 1023.95 && unit + 1 < sizeof units / sizeof units[0]; unit++)
        value /= 1024;
    snprintf(text, SHOW_SIZE, "%.1f %s", value, units[unit]);
    return text;
}

const char *show_ms(uint64_t ms, char text[SHOW_SIZE])
{
    unsigned long long s = ms / 1000;
    if (ms < 1000)
        snprintf(text, SHOW_SIZE, "%llu ms", (unsigned long long)ms);
    else if (s < 60)
        snprintf(text, SHOW_SIZE, "%llu.%llu s", s, (unsigned long long)(ms % 1000 / 100));
    else if (s < 3600)
        snprintf(text, SHOW_SIZE, "%llu:%02llu min", s / 60, s % 60);
    else if (s < 86400)
        snprintf(text, SHOW_SIZE, "%llu h %llu min", s / 3600, s % 3600 / 60);
    else
        snprintf(text, SHOW_SIZE, "%llu d %llu h", s / 86400, s % 86400 / 3600);
    return text;
}

/* ---- tables ---- */

struct table {
    char *titles[COLUMNS_MAX]; /* owned */
    bool right[COLUMNS_MAX];
    int width[COLUMNS_MAX];
    size_t columns;
    char **cells; /* owned, row by row */
    size_t count, cap;
    bool failed;
};

struct table *table_new(const char *titles)
{
    struct table *table = calloc(1, sizeof *table);
    while (table && *titles && table->columns < COLUMNS_MAX) {
        size_t i = table->columns++;
        table->right[i] = *titles == '>';
        titles += table->right[i];
        size_t len = strcspn(titles, " ");
        table->titles[i] = strndup(titles, len);
        table->width[i] = (int)len;
        table->failed = table->failed || !table->titles[i];
        titles += len + (titles[len] == ' ');
    }
    return table;
}

void table_free(struct table *table)
{
    for (size_t i = 0; i < table->columns; i++)
        free(table->titles[i]);
    for (size_t i = 0; i < table->count; i++)
        free(table->cells[i]);
    free(table->cells);
    free(table);
}

static bool make_room(struct table *table)
{
    if (table->count < table->cap)
        return true;
    size_t cap = table->cap ? 2 * table->cap : 64;
    char **cells = reallocarray(table->cells, cap, sizeof *cells);
    if (!cells)
        return false;
    table->cells = cells;
    table->cap = cap;
    return true;
}

void table_add(struct table *table, const char *cell)
{
    char text[CELL_SIZE];
    log_text(cell, strlen(cell), text, sizeof text);
    char *copy = table && make_room(table) ? strdup(*text ? text : "-") : NULL;
    if (!copy) {
        if (table)
            table->failed = true;
        return;
    }
    size_t column = table->count % table->columns;
    int len = (int)strlen(copy);
    table->width[column] = len > table->width[column] ? len : table->width[column];
    table->cells[table->count++] = copy;
}

void table_add_bytes(struct table *table, uint64_t bytes)
{
    char text[SHOW_SIZE];
    table_add(table, show_bytes(bytes, text));
}

void table_add_number(struct table *table, uint64_t number)
{
    char text[SHOW_SIZE];
    snprintf(text, sizeof text, "%llu", (unsigned long long)number);
    table_add(table, text);
}

void table_add_id(struct table *table, const char *id, bool full)
{
    char text[CELL_SIZE];
    const char *hex = strncmp(id, "sha256:", 7) == 0 ? id + 7 : id;
    bool is_id = strlen(hex) == ID_HEX_SIZE - 1 && strspn(hex, "0123456789abcdef") == ID_HEX_SIZE - 1;
    if (full || !is_id) {
        table_add(table, id);
        return;
    }
    snprintf(text, sizeof text, "%.12s", hex);
    table_add(table, text);
}

static void print_row(const struct table *table, char *const *cells)
{
    for (size_t i = 0; i < table->columns; i++) {
        bool last = i + 1 == table->columns;
        int width = table->right[i] ? table->width[i] : last ? 0 : -table->width[i];
        printf("%*s%s", width, cells[i], last ? "\n" : "  ");
    }
}

int table_print(const struct table *table, struct err *err)
{
    if (!table || table->failed)
        return err_set(err, ERR_NOMEM, "out of memory");
    print_row(table, table->titles);
    for (size_t row = 0; row + table->columns <= table->count; row += table->columns)
        print_row(table, table->cells + row);
    return 0;
}
