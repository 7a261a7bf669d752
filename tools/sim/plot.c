#include "tools/sim/plot.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>

#include "node/base/file.h"
#include "node/base/scope.h"

#define WIDTH 720.0
#define HEIGHT 420.0
#define LEFT 72.0
#define RIGHT 24.0
#define TOP 48.0
#define BOTTOM 56.0
#define FILE_BYTES (1u << 20)

struct range {
    double low, high, step;
    bool log;
};

size_t plot_line(struct plot *plot, const char *name)
{
    plot->series[plot->series_count] = (struct plot_series){.name = name};
    return plot->series_count++;
}

void plot_add(struct plot *plot, size_t line, double x, double y)
{
    struct plot_series *series = &plot->series[line];
    if (series->count == PLOT_POINTS)
        return;
    series->x[series->count] = x;
    series->y[series->count++] = y;
}

/* 1, 2 or 5 times a power of ten, such that about five steps make the span. */
static double nice_step(double span)
{
    double rough = span / 5;
    double power = pow(10, floor(log10(rough)));
    double lead = rough / power;
    return power * (lead < 1.5 ? 1 : lead < 3.5 ? 2 : lead < 7.5 ? 5 : 10);
}

static struct range range_of(const struct plot *plot, bool of_y)
{
    struct range range = {.low = INFINITY, .high = -INFINITY, .log = plot->log_x && !of_y};
    for (size_t s = 0; s < plot->series_count; s++)
        for (size_t i = 0; i < plot->series[s].count; i++) {
            double value = of_y ? plot->series[s].y[i] : plot->series[s].x[i];
            range.low = fmin(range.low, value);
            range.high = fmax(range.high, value);
        }
    if (!(range.low <= range.high))
        range = (struct range){.low = 1, .high = 10, .log = range.log};
    if (range.log) {
        range.low = pow(10, floor(log10(range.low)));
        range.high = fmax(pow(10, ceil(log10(range.high))), range.low * 10);
        return range;
    }
    if (of_y && plot->from_zero)
        range.low = fmin(range.low, 0);
    if (range.high <= range.low)
        range.high = range.low + 1;
    range.step = nice_step(range.high - range.low);
    range.low = floor(range.low / range.step) * range.step;
    range.high = ceil(range.high / range.step - 1e-9) * range.step;
    return range;
}

/* 0 to 1. */
static double share(const struct range *range, double value)
{
    if (range->log)
        return log10(value / range->low) / log10(range->high / range->low);
    return (value - range->low) / (range->high - range->low);
}

static double x_at(const struct range *range, double value)
{
    return LEFT + share(range, value) * (WIDTH - LEFT - RIGHT);
}

static double y_at(const struct range *range, double value)
{
    return HEIGHT - BOTTOM - share(range, value) * (HEIGHT - TOP - BOTTOM);
}

static double next_tick(const struct range *range, double tick)
{
    return range->log ? tick * 10 : tick + range->step;
}

static void number_text(double value, char text[32])
{
    if (fabs(value) >= 1e6)
        snprintf(text, 32, "%g M", value / 1e6);
    else if (fabs(value) >= 1e4)
        snprintf(text, 32, "%g k", value / 1e3);
    else
        snprintf(text, 32, "%g", fabs(value) < 1e-12 ? 0 : value);
}

static void put_axes(struct buf *out, const struct plot *plot, const struct range *x, const struct range *y)
{
    char text[32];
    double end = 1 + 1e-9;
    for (double tick = x->low; share(x, tick) <= end; tick = next_tick(x, tick)) {
        number_text(tick, text);
        buf_addf(out, "<line class='grid' x1='%.1f' y1='%.1f' x2='%.1f' y2='%.1f'/>", x_at(x, tick), TOP, x_at(x, tick),
                 HEIGHT - BOTTOM);
        buf_addf(out, "<text x='%.1f' y='%.1f' text-anchor='middle'>%s</text>\n", x_at(x, tick), HEIGHT - BOTTOM + 18,
                 text);
    }
    for (double tick = y->low; share(y, tick) <= end; tick = next_tick(y, tick)) {
        number_text(tick, text);
        buf_addf(out, "<line class='grid' x1='%.1f' y1='%.1f' x2='%.1f' y2='%.1f'/>", LEFT, y_at(y, tick),
                 WIDTH - RIGHT, y_at(y, tick));
        buf_addf(out, "<text x='%.1f' y='%.1f' text-anchor='end'>%s</text>\n", LEFT - 8, y_at(y, tick) + 4, text);
    }
    buf_addf(out, "<path class='axis' d='M%.1f %.1fV%.1fH%.1f'/>\n", LEFT, TOP, HEIGHT - BOTTOM, WIDTH - RIGHT);
    buf_addf(out, "<text x='%.1f' y='%.1f' text-anchor='middle'>%s</text>\n", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14,
             plot->x_label);
    buf_addf(out, "<text transform='translate(18 %.1f) rotate(-90)' text-anchor='middle'>%s</text>\n",
             (TOP + HEIGHT - BOTTOM) / 2, plot->y_label);
}

static void put_series(struct buf *out, const struct plot *plot, size_t number, const struct range *x,
                       const struct range *y)
{
    const struct plot_series *series = &plot->series[number];
    buf_addf(out, "<g class='s%zu'><polyline points='", number);
    for (size_t i = 0; i < series->count; i++)
        buf_addf(out, "%.1f,%.1f ", x_at(x, series->x[i]), y_at(y, series->y[i]));
    buf_add_str(out, "'/>");
    for (size_t i = 0; i < series->count && series->count <= 24; i++)
        buf_addf(out, "<circle cx='%.1f' cy='%.1f' r='3'/>", x_at(x, series->x[i]), y_at(y, series->y[i]));
    double at = LEFT + (double)number * (WIDTH - LEFT - RIGHT) / (double)plot->series_count;
    buf_addf(out, "<line x1='%.1f' y1='36' x2='%.1f' y2='36'/></g><text x='%.1f' y='40'>%s</text>\n", at, at + 18,
             at + 24, series->name);
}

static const char style[] =
    "<style>text{font:12px system-ui,sans-serif;fill:#555}.title{font-size:14px;font-weight:600}"
    ".grid{stroke:#8884;stroke-width:1}.axis{stroke:#888;fill:none}polyline,g line{fill:none;stroke-width:2}"
    ".s0{stroke:#2b7bba;fill:#2b7bba}.s1{stroke:#d9722b;fill:#d9722b}.s2{stroke:#3a9a5b;fill:#3a9a5b}"
    ".s3{stroke:#b0486f;fill:#b0486f}.s4{stroke:#7a63b8;fill:#7a63b8}.s5{stroke:#8a8a2a;fill:#8a8a2a}"
    "@media(prefers-color-scheme:dark){text{fill:#bbb}}</style>\n";

void plot_write(const struct plot *plot, const char *directory, const char *name)
{
    if (!directory)
        return;
    OWNED(buf_release) struct buf out = BUF(FILE_BYTES);
    OWNED(owned_free) char *path = file_path("%s/%s.svg", directory, name);
    struct range x = range_of(plot, false);
    struct range y = range_of(plot, true);
    struct err err = {0};
    buf_addf(&out, "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %.0f %.0f'>%s", WIDTH, HEIGHT, style);
    buf_addf(&out, "<text class='title' x='%.1f' y='20'>%s</text>\n", LEFT, plot->title);
    put_axes(&out, plot, &x, &y);
    for (size_t i = 0; i < plot->series_count; i++)
        put_series(&out, plot, i, &x, &y);
    buf_add_str(&out, "</svg>\n");
    int status = path && !out.failed ? file_make_dirs(directory, 0777, &err) : err_set(&err, ERR_NOMEM, "no memory");
    if (status == 0)
        status = file_write_atomic(path, out.data, out.len, 0666, &err);
    if (status < 0)
        fprintf(stderr, "%s: plot '%s' is not written: %s\n", program_invocation_short_name, name, err.text);
    else
        fprintf(stderr, "%s: wrote %s\n", program_invocation_short_name, path);
}
