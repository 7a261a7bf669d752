/*
 * RESP2, the protocol of Redis clients (redis.io, "Redis serialization protocol specification"): commands in, replies
 * out. The door to hiredis, whose reader takes the bytes of commands apart; nothing else includes it.
 *
 * A command is an array of bulk strings, or one line of words ("inline"). Counts and lengths are checked before
 * anything is kept for them, so a reader never holds more than LIMIT_RESP_COMMAND_BYTES and what was fed at once.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/buf.h"
#include "node/base/err.h"

/* ---- in ---- */

/* One word of a command. A NUL that is not counted follows it. */
struct resp_arg {
    const char *data; /* borrowed from the reader, until the next resp_next */
    size_t len;
};

struct resp_command {
    const struct resp_arg *args; /* borrowed likewise */
    size_t count;                /* at least 1 */
};

struct resp_reader;

int resp_reader_new(struct resp_reader **ret_reader, struct err *err);
void resp_reader_free(struct resp_reader *reader);

/* Bytes from the client; copied, but passed over once reading has failed. ERR_NOMEM. */
int resp_feed(struct resp_reader *reader, const void *data, size_t len_bytes, struct err *err);
/* The next command: 1, or 0 if it has not arrived whole. ERR_PROTOCOL with the text that Redis would answer after
 * "ERR Protocol error: ", ERR_DENIED for a client that speaks HTTP or TLS, ERR_NOMEM: nothing more can be read. */
int resp_next(struct resp_reader *reader, struct resp_command *ret_command, struct err *err);
/* A command has begun to arrive and is not whole. */
bool resp_is_amid(const struct resp_reader *reader);

/* ---- out: everything appends to a struct buf, whose `failed` sticks ---- */

#define RESP_OK "+OK\r\n"
#define RESP_NIL "$-1\r\n"

/* A whole reply given as its bytes, such as RESP_OK. */
#define resp_put(out, literal) buf_add((out), (literal), sizeof(literal) - 1)

void resp_put_array(struct buf *out, size_t count);
void resp_put_integer(struct buf *out, int64_t value);
void resp_put_bulk(struct buf *out, const void *data, size_t len_bytes);
void resp_put_text(struct buf *out, const char *text);
/* A score as a bulk string, in the form of resp_score_text. */
void resp_put_score(struct buf *out, double score);
/* "-<formatted>\r\n", with what would break the line replaced by spaces. The first word is the code: "ERR ...". */
void resp_put_error(struct buf *out, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- numbers as Redis 7.0 reads and writes them ---- */

#define RESP_SCORE_TEXT_SIZE 32
/* "%.17g", "inf" and "-inf"; returns the length. */
size_t resp_score_text(double score, char text[RESP_SCORE_TEXT_SIZE]);
/* A decimal integer in its one spelling: no plus, no leading zeros or spaces. */
bool resp_parse_integer(const struct resp_arg *arg, int64_t *ret_value);
/* A floating point number or inf, of which nothing is lost to overflow or underflow; NaN is none. */
bool resp_parse_score(const struct resp_arg *arg, double *ret_score);
