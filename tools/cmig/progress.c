#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "node/base/clock.h"
#include "tools/cmig/cmig.h"

#define DRAW_EVERY_MS 100
#define MEASURE_MS 300 /* before a rate is said */
#define BAR_MAX 30
#define BAR_MIN 5 /* 80 columns have room for it beside all numbers */
#define LINE_SIZE 256

static uint64_t now_ms(void)
{
    struct clock clock = clock_system();
    return clock_mono_ms(&clock);
}

void progress_init(struct progress *progress, const struct cmig *cmig)
{
    *progress = (struct progress){.shown = !cmig->json && isatty(STDERR_FILENO), .started_ms = now_ms()};
}

static size_t columns_of_terminal(void)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col == 0)
        return 80;
    return size.ws_col < LINE_SIZE ? size.ws_col : LINE_SIZE - 1;
}

/* What is left is a guess: "9 s" says as much of it as "8.7 s". */
static const char *show_left(uint64_t bytes, uint64_t bytes_per_s, char text[SHOW_SIZE])
{
    uint64_t seconds = bytes / bytes_per_s + 1;
    if (seconds >= 60)
        return show_ms(seconds * 1000, text);
    snprintf(text, SHOW_SIZE, "%u s", (unsigned)seconds);
    return text;
}

/* "  45%  123.4 MiB of 300.0 MiB  12.1 MiB/s  14 s left  3 peers" */
static void describe(char *line, size_t size, uint64_t done, uint64_t total, uint64_t rate, uint64_t peers)
{
    char a[SHOW_SIZE], b[SHOW_SIZE];
    size_t used = 0;
    if (total > 0)
        used += (size_t)snprintf(line + used, size - used, " %3u%%  %s of %s",
                                 (unsigned)(done < total ? (double)done * 100 / (double)total : 100),
                                 show_bytes(done, a), show_bytes(total, b));
    else
        used += (size_t)snprintf(line + used, size - used, "  %s", show_bytes(done, a));
    if (rate > 0)
        used += (size_t)snprintf(line + used, size - used, "  %s/s", show_bytes(rate, a));
    if (rate > 0 && total > done)
        used += (size_t)snprintf(line + used, size - used, "  %s left", show_left(total - done, rate, a));
    if (peers > 0)
        snprintf(line + used, size - used, "  %llu peer%s", (unsigned long long)peers, peers == 1 ? "" : "s");
}

static void make_bar(char bar[BAR_MAX + 4], size_t width, uint64_t done, uint64_t total)
{
    size_t full = done < total ? (size_t)((double)done / (double)total * (double)width) : width;
    bar[0] = '[';
    for (size_t i = 0; i < width; i++)
        bar[1 + i] = i < full ? '=' : i == full ? '>' : ' ';
    memcpy(bar + 1 + width, "]", 2);
}

void progress_draw(struct progress *progress, const char *what, uint64_t done_bytes, uint64_t total_bytes,
                   uint64_t bytes_per_s, uint64_t peers)
{
    uint64_t now = now_ms();
    if (!progress->shown || (progress->drawn > 0 && now - progress->drawn_ms < DRAW_EVERY_MS))
        return;
    progress->drawn_ms = now;
    if (bytes_per_s == 0 && now >= progress->started_ms + MEASURE_MS)
        bytes_per_s = (uint64_t)((double)done_bytes * 1000 / (double)(now - progress->started_ms));
    char numbers[LINE_SIZE], bar[BAR_MAX + 4] = "", line[2 * LINE_SIZE];
    describe(numbers, sizeof numbers, done_bytes, total_bytes, bytes_per_s, peers);
    size_t columns = columns_of_terminal();
    size_t room = strlen(what) + strlen(numbers) + 4;
    if (total_bytes > 0 && room + BAR_MIN <= columns)
        make_bar(bar, columns - room < BAR_MAX ? columns - room : BAR_MAX, done_bytes, total_bytes);
    int len = snprintf(line, sizeof line, "%s %s%s", what, bar, numbers);
    progress->drawn = (size_t)len < columns ? (size_t)len : columns - 1;
    fprintf(stderr, "\r%.*s\x1b[K", (int)progress->drawn, line);
}

void progress_end(struct progress *progress)
{
    if (progress->drawn > 0)
        fputs("\r\x1b[K", stderr);
    progress->drawn = 0;
}
