/*
 * The command line `cmig`: one process, one command, one daemon on a local socket.
 *
 * main.c has the table of commands and turns errors into text and exit codes; args.c reads the words; the files named
 * after subjects (node.c, object.c, registry.c, image.c, container.c, migrate.c) each hold their commands; show.c and
 * progress.c print. With --json what is printed is the daemon's own JSON (docs/api.md), errors included.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/api/client.h"
#include "node/api/json.h"
#include "node/base/err.h"
#include "node/base/scope.h"

/* Exit codes, as cmig(1) promises them. */
enum {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_NOT_FOUND = 3,
    EXIT_NO_DAEMON = 4,
    EXIT_REFUSED = 5,
    EXIT_INTERRUPTED = 130,
};

struct flag {
    const char *name;  /* "name", given as --name */
    char letter;       /* given as -n; 0: none */
    const char *value; /* how the value is called in the help; NULL: the flag has none */
    const char *help;
};

#define FLAGS_MAX 10

struct cmig;

struct command {
    const char *name;     /* "put", "image import" */
    const char *operands; /* "FILE|-" */
    const char *summary;
    int (*run)(struct cmig *cmig, struct err *err);
    int min, max;                 /* operands; max -1: any number */
    bool words;                   /* flags end at the first operand: what follows is another program's */
    struct flag flags[FLAGS_MAX]; /* besides the common ones */
    const char *examples;         /* one a line */
};

struct given {
    const struct flag *flag;
    const char *value; /* borrowed from argv; "" for flags without */
};

/* The command line as it was understood. */
struct cmig {
    const struct command *command;
    const char **operands; /* owned; the texts are argv's */
    int operand_count;
    struct given *given; /* owned */
    size_t given_count;
    const char *socket; /* borrowed */
    char *own_socket;   /* owned: what `socket` is if it was found, not given */
    bool json, full;
    bool misused;              /* the error is one of usage */
    bool shown;                /* what was printed says already that it failed */
    struct api_client *client; /* owned */
};

/* ---- args.c ---- */

extern const struct flag common_flags[FLAGS_MAX];

/* Read the words after the command's name. ERR_INVALID with cmig->misused. */
int args_read(struct cmig *cmig, int argc, char **argv, struct err *err);
void args_release(struct cmig *cmig);
/* The value of a flag, the last one given; NULL if it was not. */
const char *args_flag(const struct cmig *cmig, const char *name);
/* Each value of a flag in turn: start with *cursor = 0; NULL at the end. */
const char *args_next(const struct cmig *cmig, const char *name, size_t *cursor);
/* ERR_INVALID unless the text is a digest. */
int args_check_digest(struct cmig *cmig, const char *text, struct err *err);
/* A flag's value as a whole number of at most max; fallback if it was not given. */
int args_number(struct cmig *cmig, const char *name, uint64_t fallback, uint64_t max, uint64_t *ret_number,
                struct err *err);
/* Always ERR_INVALID, and the exit code is that of wrong usage. */
int args_misuse(struct cmig *cmig, struct err *err, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ---- show.c ---- */

/* One line of JSON on standard output. */
void show_json(const json_t *value);
/* "412 B", "1.5 KiB", "20.0 MiB" */
#define SHOW_SIZE 32
const char *show_bytes(uint64_t bytes, char text[SHOW_SIZE]);
/* "31 ms", "4.2 s", "3:07 min", "2 d 4 h" */
const char *show_ms(uint64_t ms, char text[SHOW_SIZE]);

/* A table with aligned columns on standard output. Cells are copied, with what a terminal could take for commands made
 * visible: names come from other nodes. */
struct table;
/* Titles between single spaces; a title that begins with '>' stands right-aligned. NULL when out of memory. */
struct table *table_new(const char *titles);
void table_free(struct table *table);
OWNED_DEFINE(owned_table, struct table, table_free)
void table_add(struct table *table, const char *cell);
void table_add_bytes(struct table *table, uint64_t bytes);
void table_add_number(struct table *table, uint64_t number);
/* The field's text, or its first 12 hex digits if it is an id or digest and `full` is false; "-" if it is empty. */
void table_add_id(struct table *table, const char *id, bool full);
/* Print all complete rows. Returns 0 or ERR_NOMEM if any cell could not be kept. */
int table_print(const struct table *table, struct err *err);

/* ---- progress.c ---- */

/* A line on the terminal's standard error that is drawn over and over; nothing if that is no terminal. */
struct progress {
    bool shown; /* is there a terminal */
    uint64_t started_ms, drawn_ms;
    size_t drawn; /* columns of the line that stands there */
};

void progress_init(struct progress *progress, const struct cmig *cmig);
/* total 0: unknown; rate 0: computed from the start; peers 0: not said. */
void progress_draw(struct progress *progress, const char *what, uint64_t done_bytes, uint64_t total_bytes,
                   uint64_t bytes_per_s, uint64_t peers);
/* Wipe the line. */
void progress_end(struct progress *progress);

/* ---- download.c ---- */

/* Where a download goes: a file that appears under its name only when it is whole, or what is there to be written to:
 * standard output, a device, a pipe. */
struct download {
    struct cmig *cmig;
    const char *path;           /* borrowed; NULL: standard output */
    char *part;                 /* owned */
    int fd;                     /* owned unless it is standard output */
    struct crypto_sha256 *hash; /* owned */
    uint64_t bytes;
    bool published;
    struct progress progress;
};

/* Open what the flag --output names, before anything is asked of the daemon; without it standard output, unless that is
 * a terminal or wanted for JSON. download_close is due also after a failure. */
int download_open(struct cmig *cmig, struct download *ret_down, struct err *err);
/* Download the answer of a call. If digest is not NULL, "sha256:..." that the bytes must have. After a failure it may
 * be called again if `part` is not NULL: what has come is forgotten then. */
int download_run(struct download *down, const struct api_call *call, const char *digest, struct err *err);
/* Removes a file that was not completed. */
void download_close(struct download *down);

/* ---- commands ---- */

int node_status(struct cmig *cmig, struct err *err);
int node_peers(struct cmig *cmig, struct err *err);
int node_volumes(struct cmig *cmig, struct err *err);
int node_bandwidth(struct cmig *cmig, struct err *err);
int node_scrub(struct cmig *cmig, struct err *err);
int node_log_level(struct cmig *cmig, struct err *err);
int object_put(struct cmig *cmig, struct err *err);
int object_get(struct cmig *cmig, struct err *err);
int object_prefetch(struct cmig *cmig, struct err *err);
int object_ls(struct cmig *cmig, struct err *err);
int object_pin(struct cmig *cmig, struct err *err);
int object_unpin(struct cmig *cmig, struct err *err);
int registry_why(struct cmig *cmig, struct err *err);
int registry_get(struct cmig *cmig, struct err *err);
int registry_set(struct cmig *cmig, struct err *err);
int registry_remove(struct cmig *cmig, struct err *err);
int registry_watch(struct cmig *cmig, struct err *err);
int image_import(struct cmig *cmig, struct err *err);
int image_ls(struct cmig *cmig, struct err *err);
int image_show(struct cmig *cmig, struct err *err);
int image_rm(struct cmig *cmig, struct err *err);
int image_export(struct cmig *cmig, struct err *err);
int container_run(struct cmig *cmig, struct err *err);
int container_ps(struct cmig *cmig, struct err *err);
int container_logs(struct cmig *cmig, struct err *err);
int container_stop(struct cmig *cmig, struct err *err);
/* Containers by name, objects by digest. */
int container_rm(struct cmig *cmig, struct err *err);
int migrate_run(struct cmig *cmig, struct err *err);
