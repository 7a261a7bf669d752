#include "node/base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *err, int code, const char *format, ...)
{
    int negative = code < 0 ? code : ERR_INTERNAL;
    if (!err)
        return negative;
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    err->code = negative;
    return negative;
}

int err_wrap(struct err *err, const char *format, ...)
{
    if (!err)
        return ERR_INTERNAL;
    char inner[ERR_TEXT_SIZE];
    memcpy(inner, err->text, sizeof inner);
    inner[sizeof inner - 1] = '\0';

    va_list args;
    va_start(args, format);
    int used = vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    if (used >= 0 && (size_t)used < sizeof err->text - 3) /* 3: the colon, the space and the NUL */
        snprintf(err->text + used, sizeof err->text - (size_t)used, ": %.*s", (int)(sizeof inner - 3) - used, inner);
    if (err->code >= 0)
        err->code = ERR_INTERNAL;
    return err->code;
}

static int code_of_errno(int os_error)
{
    switch (os_error) {
    case ENOMEM:
        return ERR_NOMEM;
    case ENOSPC:
    case EDQUOT:
        return ERR_NOSPACE;
    case ENOENT:
        return ERR_NOTFOUND;
    case EEXIST:
        return ERR_EXISTS;
    case EACCES:
    case EPERM:
        return ERR_DENIED;
    default:
        return ERR_IO;
    }
}

int err_errno(struct err *err, int os_error, const char *format, ...)
{
    int code = code_of_errno(os_error);
    if (!err)
        return code;
    va_list args;
    va_start(args, format);
    int used = vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    if (used >= 0 && (size_t)used < sizeof err->text)
        snprintf(err->text + used, sizeof err->text - (size_t)used, ": %s", strerror(os_error));
    err->code = code;
    return code;
}

const char *err_name(int code)
{
    switch (code) {
#define X(c, value, name, text)                                                                                        \
    case c:                                                                                                            \
        return name;
        ERR_LIST(X)
#undef X
    default:
        return "unknown";
    }
}

int err_code_of_name(const char *name)
{
#define X(c, value, short_name, text)                                                                                  \
    if (strcmp(name, short_name) == 0)                                                                                 \
        return c;
    ERR_LIST(X)
#undef X
    return 0;
}

void err_clear(struct err *err)
{
    if (err) {
        err->code = 0;
        err->text[0] = '\0';
    }
}
