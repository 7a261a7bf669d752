/*
 * Errors: one list of codes, and a fixed-size context that the caller owns.
 *
 * Every function that can fail takes `struct err *err` last and returns 0 (or a count, or 1/0 for yes/no)
 * on success and a negative code on failure. The text is set where the failure happens, in lower case, what
 * failed first, the subject quoted; each caller on the way up may put what it was doing in front of it.
 *
 * 1. err_set, err_wrap and err_errno always return a negative code, so `return err_set(...)` cannot succeed.
 * 2. `err` may be NULL: the code is still returned.
 * 3. "Not found", "blocked" and "end" are results where they are expected; the codes here are for when they are not.
 */
#pragma once

#include <stdarg.h>
#include <stddef.h>

/* X(code, value, name on the wire and in JSON, when it happens and what remains true afterwards) */
#define ERR_LIST(X)                                                                                                    \
    X(ERR_NOMEM, -1, "no-memory", "an allocation failed; the request had no effect")                                   \
    X(ERR_IO, -2, "io", "the operating system refused a read, write, sync or call")                                    \
    X(ERR_CORRUPT, -3, "corrupt", "stored or received bytes fail their digest; nothing was kept of them")              \
    X(ERR_PROTOCOL, -4, "protocol", "a peer's bytes do not follow the protocol; the session ends")                     \
    X(ERR_INVALID, -5, "invalid", "what the user or a file gave is malformed; nothing was changed")                    \
    X(ERR_DENIED, -6, "denied", "authenticated, but without the right to do this")                                     \
    X(ERR_AUTH, -7, "auth", "could not be authenticated")                                                              \
    X(ERR_NOTFOUND, -8, "not-found", "what was named does not exist")                                                  \
    X(ERR_EXISTS, -9, "exists", "what was to be made exists already and is unchanged")                                 \
    X(ERR_BUSY, -10, "busy", "in use by somebody else; try again later")                                               \
    X(ERR_LIMIT, -11, "limit", "a maximum of limits.h or of the configuration would be passed")                        \
    X(ERR_NOSPACE, -12, "no-space", "the disk, the quota or the free-disk floor leaves no room")                       \
    X(ERR_TIMEOUT, -13, "timeout", "a deadline passed; the other side may or may not have acted")                      \
    X(ERR_CLOSED, -14, "closed", "the other side went away")                                                           \
    X(ERR_UNAVAILABLE, -15, "unavailable", "nobody who could serve this can be reached")                               \
    X(ERR_CANCELLED, -16, "cancelled", "the caller or the user gave up; what was done is undone")                      \
    X(ERR_UNSUPPORTED, -17, "unsupported", "this build, kernel or outside program cannot do it")                       \
    X(ERR_CONFLICT, -18, "conflict", "not possible in the present state of the subject; nothing was changed")          \
    X(ERR_INTERNAL, -19, "internal", "a bug of ours; the text says where")

enum err_code {
#define X(code, value, name, text) code = (value),
    ERR_LIST(X)
#undef X
};

#define ERR_TEXT_SIZE 512

struct err {
    int code; /* 0: no error */
    char text[ERR_TEXT_SIZE];
};

/* Set the text (printf format) and return `code`, which must be one of enum err_code. Overlong text is cut. */
int err_set(struct err *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Put "<formatted>: " in front of the present text; return the present code (ERR_INTERNAL if none is set). */
int err_wrap(struct err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Set "<formatted>: <strerror(os_error)>". The code is ERR_NOMEM, ERR_NOSPACE (ENOSPC, EDQUOT), ERR_NOTFOUND
 * (ENOENT), ERR_EXISTS, ERR_DENIED (EACCES, EPERM) or ERR_IO. `os_error` is a positive errno value. */
int err_errno(struct err *err, int os_error, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The short name of a code ("no-space"), for JSON and logs; "unknown" for a number outside the list. Static. */
const char *err_name(int code);

/* The code of a short name, 0 if there is none: for clients that read err_name from JSON. */
int err_code_of_name(const char *name);

/* Forget a set error. */
void err_clear(struct err *err);
