#include "node/base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* The one piece of state at file scope that the house allows. */
static _Atomic(enum log_level) current_level = LOG_INFO;
static atomic_bool to_journal;

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static const char journal_priority[] = {'3', '4', '6', '7'}; /* sd-daemon(3) */

void log_set_level(enum log_level level)
{
    current_level = level;
}

enum log_level log_get_level(void)
{
    return current_level;
}

void log_set_journal(bool journal)
{
    to_journal = journal;
}

bool log_parse_level(const char *text, enum log_level *ret_level)
{
    for (size_t i = 0; i < sizeof level_names / sizeof level_names[0]; i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *ret_level = (enum log_level)i;
            return true;
        }
    }
    return false;
}

static size_t put_prefix(char *line, size_t size, enum log_level level, const char *area)
{
    if (to_journal)
        return (size_t)snprintf(line, size, "<%c>%s: ", journal_priority[level], area);
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    size_t used = strftime(line, size, "%Y-%m-%dT%H:%M:%S", &parts);
    return used + (size_t)snprintf(line + used, size - used, ".%03ldZ %-5s %s: ", now.tv_nsec / 1000000,
                                   level_names[level], area);
}

void log_write(enum log_level level, const char *area, const char *format, ...)
{
    if (level > current_level)
        return;
    char line[2048];
    size_t used = put_prefix(line, sizeof line / 2, level, area);
    va_list args;
    va_start(args, format);
    int more = vsnprintf(line + used, sizeof line - used - 1, format, args);
    va_end(args);
    if (more > 0)
        used += (size_t)more < sizeof line - used - 1 ? (size_t)more : sizeof line - used - 2;
    line[used++] = '\n';
    fwrite(line, 1, used, stderr);
}

const char *log_text(const void *data, size_t len_bytes, char *text, size_t text_size)
{
    const unsigned char *from = data;
    size_t at = 0;
    for (size_t i = 0; i < len_bytes && at + 5 <= text_size; i++) {
        if (from[i] >= 0x20 && from[i] < 0x7f && from[i] != '\\')
            text[at++] = (char)from[i];
        else
            at += (size_t)snprintf(text + at, text_size - at, "\\x%02x", from[i]);
    }
    text[at] = '\0';
    return text;
}

bool log_allowed(struct log_limit *limit, uint64_t now_mono_ms, uint64_t interval_ms, uint64_t *ret_skipped)
{
    if (now_mono_ms < limit->next_ms) {
        limit->skipped++;
        return false;
    }
    *ret_skipped = limit->skipped;
    limit->skipped = 0;
    limit->next_ms = now_mono_ms + interval_ms;
    return true;
}
