/*
 * What a scenario has to say: tables on standard output, as text for people or as JSON.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REPORT_COLUMNS 16
#define REPORT_CELL 24

struct report {
    const char *scenario;
    const char *columns[REPORT_COLUMNS]; /* names, as in JSON; borrowed */
    size_t column_count;
    char (*cells)[REPORT_COLUMNS][REPORT_CELL]; /* owned: rows */
    size_t row_count, row_cap;
    size_t column; /* the next cell of the last row */
    char notes[4096];
    size_t notes_len;
    uint64_t seed;
    bool json;
};

/* Columns as "one two three". */
void report_init(struct report *report, const char *scenario, uint64_t seed, bool json, const char *columns);
void report_release(struct report *report);
void report_row(struct report *report);
/* The next cell of the row: a number. */
void report_count(struct report *report, unsigned long long value);
void report_number(struct report *report, double value, int digits);
/* A sentence below the table. */
void report_note(struct report *report, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A figure that is to be reached, beside what was measured; `reached` decides the word. */
void report_target(struct report *report, bool reached, const char *format, ...) __attribute__((format(printf, 3, 4)));
void report_print(const struct report *report);
