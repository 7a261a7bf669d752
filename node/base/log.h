/*
 * One line a message on standard error: time, level, area, then key=value pairs.
 *
 * Only node and tools log above debug; libraries return errors instead. Bytes from peers never go in raw: text from
 * outside passes through log_text. The level can be changed while running. Safe on any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_set_level(enum log_level level);
enum log_level log_get_level(void);
/* "error", "warn", "info", "debug"; false for anything else. */
bool log_parse_level(const char *text, enum log_level *ret_level);
/* Lines begin with a systemd priority ("<3>") in place of the time, when the journal is listening. */
void log_set_journal(bool journal);

/* `area` is the room that speaks ("net", "migrate"); format: "event key=value key=value". */
void log_write(enum log_level level, const char *area, const char *format, ...) __attribute__((format(printf, 3, 4)));

#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)

/* Printable ASCII of hostile bytes, the rest as \xNN, cut to fit and NUL-terminated; returns `text`. */
const char *log_text(const void *data, size_t len_bytes, char *text, size_t text_size);

/* For lines that a peer can cause: true at most once per interval_ms, and then *ret_skipped is how many were not
 * written since the last. Zero-initialise; one per kind of line. Not thread-safe. */
struct log_limit {
    uint64_t next_ms;
    uint64_t skipped;
};
bool log_allowed(struct log_limit *limit, uint64_t now_mono_ms, uint64_t interval_ms, uint64_t *ret_skipped);
