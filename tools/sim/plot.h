/*
 * Line plots as SVG, which read as well on a light page as on a dark one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define PLOT_SERIES 6
#define PLOT_POINTS 512

struct plot_series {
    const char *name; /* borrowed */
    double x[PLOT_POINTS], y[PLOT_POINTS];
    size_t count;
};

struct plot {
    const char *title, *x_label, *y_label; /* borrowed */
    bool log_x;
    bool from_zero; /* the y axis begins at 0 */
    struct plot_series series[PLOT_SERIES];
    size_t series_count;
};

/* A new line; the number is for plot_add. */
size_t plot_line(struct plot *plot, const char *name);
void plot_add(struct plot *plot, size_t line, double x, double y);
/* Write directory/name.svg, and say so on standard error; nothing if the directory is NULL. Makes the directory. */
void plot_write(const struct plot *plot, const char *directory, const char *name);
