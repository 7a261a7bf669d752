/*
 * The command line of a simulator: its commands, and the flags that they take.
 *
 * A program defines its own `struct options`, a table of flags that says where in it each goes, and a table of
 * commands. Flags of the model are taken by every command, others by those that name them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Defined by the program. */
struct options;

#define COMMAND_LIST_MAX 16

/* A list of numbers as given by "1000,10000". */
struct command_list {
    uint64_t values[COMMAND_LIST_MAX];
    size_t count;
};

enum flag_type {
    FLAG_NUMBER, /* uint64_t */
    FLAG_SHARE,  /* double, percent */
    FLAG_LIST,   /* struct command_list */
    FLAG_TEXT,   /* const char *, of the argument */
    FLAG_SWITCH, /* bool */
};

struct flag {
    const char *name;
    enum flag_type type;
    size_t offset; /* in struct options */
    bool of_model; /* taken by every command */
    uint64_t min, max;
    const char *usual; /* given first, then the command's own defaults, then what the user says */
    const char *what;
};

struct command {
    const char *name;
    const char *what;     /* it shows */
    const char *flags;    /* that it looks at besides those of the model, each after a space */
    const char *defaults; /* "name=value name=value", set before those of the user */
    const char *example;
    int (*run)(const struct options *options);
};

struct program {
    const char *name;
    const char *intro; /* a few lines */
    const struct flag *flags;
    size_t n_flags;
    const struct command *commands;
    size_t n_commands;
};

/* Fill in the zeroed options and run the command that the arguments name, or print help. The exit code: 2 after a
 * message on standard error when they cannot be understood. */
int command_main(const struct program *program, int argc, char **argv, struct options *options);
