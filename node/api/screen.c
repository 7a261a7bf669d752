#include "node/api/screen.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define JSON_TYPE "application/json"

static const char *const foreign_headers[] = {"Origin", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host"};

static bool host_is_local(const char *host)
{
    static const char *const literals[] = {"127.0.0.1", "[::1]"};
    for (size_t i = 0; i < 2; i++) {
        size_t len = strlen(literals[i]);
        if (strncmp(host, literals[i], len) == 0 && (host[len] == '\0' || host[len] == ':'))
            return true;
    }
    return !strpbrk(host, ".[]");
}

static void add_length(struct api_screen *screen, const char *value)
{
    size_t digits = strspn(value, "0123456789");
    screen->lengths++;
    if (digits == 0 || digits > 18 || value[digits] != '\0')
        screen->bad_framing = true;
    else
        screen->length = strtoll(value, NULL, 10);
}

static void add_encoding(struct api_screen *screen, const char *value)
{
    screen->encodings++;
    screen->length = -1;
    if (strcasecmp(value, "chunked") != 0)
        screen->bad_framing = true;
}

void api_screen_add(struct api_screen *screen, const char *name, const char *value)
{
    if (!value)
        value = "";
    if (*name == '\0') /* CVE-2023-25725: what follows an empty name is hidden from some parsers */
        screen->bad_framing = true;
    if (strcasecmp(name, "Content-Length") == 0)
        add_length(screen, value);
    else if (strcasecmp(name, "Transfer-Encoding") == 0)
        add_encoding(screen, value);
    else if (strcasecmp(name, "Host") == 0)
        screen->bad_host = screen->bad_host || !host_is_local(value);
    else if (strcasecmp(name, "Content-Type") == 0)
        screen->json = strncasecmp(value, JSON_TYPE, strlen(JSON_TYPE)) == 0;
    for (size_t i = 0; i < sizeof foreign_headers / sizeof foreign_headers[0]; i++) {
        if (strcasecmp(name, foreign_headers[i]) == 0)
            screen->foreign = foreign_headers[i];
    }
}

int api_screen_framing(const struct api_screen *screen, struct err *err)
{
    if (screen->bad_framing || screen->lengths + screen->encodings > 1)
        return err_set(err, ERR_INVALID, "the headers do not agree on one length of the body");
    return 0;
}

int api_screen_sender(const struct api_screen *screen, struct err *err)
{
    if (screen->foreign)
        return err_set(err, ERR_DENIED, "a request with the header '%s' comes from a browser or a proxy",
                       screen->foreign);
    if (screen->bad_host)
        return err_set(err, ERR_DENIED, "the header 'Host' is not 'localhost' or another local name");
    return 0;
}
