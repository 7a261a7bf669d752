/* Invitations as text. What is wrong with one is told by its part; the secret is never repeated. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "node/base/log.h"
#include "node/identity/identity.h"

#define SCHEME "cmig://"
#define LABEL_MAX 63
#define CLUSTER_HEX (2 * ID_BYTES)
#define SECRET_HEX (2 * INVITATION_SECRET_BYTES)

/* ---- HOST[:PORT] ---- */

static bool is_label(const char *label, size_t len)
{
    if (len == 0 || len > LABEL_MAX || label[0] == '-' || label[len - 1] == '-')
        return false;
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)label[i]) && label[i] != '-' && label[i] != '_')
            return false;
    return true;
}

/* RFC 1123 names, and the underscore that container names have. Digits and dots alone must be an address. */
static bool is_host_name(const char *host)
{
    const char *at = host;
    for (;;) {
        size_t len = strcspn(at, ".");
        if (!is_label(at, len))
            return false;
        if (!at[len])
            return strspn(host, "0123456789.") != strlen(host);
        at += len + 1;
    }
}

static bool parse_port(const char *text, uint16_t *ret_port)
{
    unsigned value = 0;
    size_t len = strlen(text);
    if (len == 0 || len > 5 || text[0] == '0' || strspn(text, "0123456789") != len)
        return false;
    for (size_t i = 0; i < len; i++)
        value = value * 10 + (unsigned)(text[i] - '0');
    *ret_port = (uint16_t)value;
    return value <= UINT16_MAX;
}

static bool is_address(const char *host, uint8_t family)
{
    struct addr addr;
    return addr_parse(host, 1, &addr) && addr.family == family && addr.port == 1;
}

/* Take the host, without brackets, off the front; *ret_rest is what follows it. */
static bool split_host(const char *text, char ret_host[INVITATION_HOST_SIZE], const char **ret_rest)
{
    bool bracket = text[0] == '[';
    size_t len = strcspn(text += bracket, bracket ? "]" : ":");
    if (len >= INVITATION_HOST_SIZE || (bracket && text[len] != ']'))
        return false;
    memcpy(ret_host, text, len);
    ret_host[len] = '\0';
    *ret_rest = text + len + bracket;
    if (bracket)
        return strchr(ret_host, ':') && is_address(ret_host, 6);
    return is_host_name(ret_host) || is_address(ret_host, 4);
}

int invitation_parse_peer(const char *text, uint16_t default_port, char ret_host[INVITATION_HOST_SIZE],
                          uint16_t *ret_port, struct err *err)
{
    char shown[96];
    char host[INVITATION_HOST_SIZE];
    const char *rest;
    uint16_t port = default_port;
    if (is_address(text, 6) && text[0] != '[') { /* bare IPv6 has no room for a port */
        snprintf(host, sizeof host, "%s", text);
        rest = "";
    } else if (!split_host(text, host, &rest)) {
        return err_set(err, ERR_INVALID, "'%s' is no HOST[:PORT]: a name, an IPv4 address, or an IPv6 address in []",
                       log_text(text, strlen(text), shown, sizeof shown));
    }
    bool good = *rest == ':' ? parse_port(rest + 1, &port) : *rest == '\0' && default_port != 0;
    if (!good)
        return err_set(err, ERR_INVALID, "'%s': the port must be a number from 1 to 65535",
                       log_text(text, strlen(text), shown, sizeof shown));
    memcpy(ret_host, host, sizeof host);
    *ret_port = port;
    return 0;
}

/* ---- CLUSTER/SECRET ---- */

static int parse_token(const char *text, struct invitation *invitation, struct err *err)
{
    char cluster[ID_HEX_SIZE] = "";
    size_t len = strcspn(text, "/");
    if (len == CLUSTER_HEX)
        memcpy(cluster, text, CLUSTER_HEX);
    if (!id_parse_hex(cluster, &invitation->cluster))
        return err_set(err, ERR_INVALID, "the invitation's cluster id must be %d lower-case hex digits", CLUSTER_HEX);
    if (text[len] != '/' || strlen(text + len + 1) != SECRET_HEX ||
        !hex_decode(text + len + 1, SECRET_HEX, invitation->secret, sizeof invitation->secret))
        return err_set(err, ERR_INVALID, "the invitation's secret must be %d lower-case hex digits; was it cut short?",
                       SECRET_HEX);
    return 0;
}

/* ---- the whole ---- */

const char *invitation_text(const struct invitation *invitation, char text[INVITATION_TEXT_SIZE])
{
    char cluster[ID_HEX_SIZE];
    char secret[SECRET_HEX + 1];
    id_hex(&invitation->cluster, cluster);
    hex_encode(invitation->secret, sizeof invitation->secret, secret);
    const char *format = strchr(invitation->host, ':') ? SCHEME "[%s]:%u/%s/%s" : SCHEME "%s:%u/%s/%s";
    snprintf(text, INVITATION_TEXT_SIZE, format, invitation->host, invitation->port, cluster, secret);
    crypto_wipe(secret, sizeof secret);
    return text;
}

int invitation_parse(const char *text, struct invitation *ret_invitation, struct err *err)
{
    struct invitation invitation = {0};
    if (strncmp(text, SCHEME, strlen(SCHEME)) != 0)
        return err_set(err, ERR_INVALID, "an invitation begins with " SCHEME);
    text += strlen(SCHEME);
    char peer[INVITATION_HOST_SIZE + 8];
    size_t len = strcspn(text, "/");
    if (text[len] != '/' || len >= sizeof peer)
        return err_set(err, ERR_INVALID, "an invitation is " SCHEME "HOST:PORT/CLUSTER/SECRET");
    memcpy(peer, text, len);
    peer[len] = '\0';
    int status = invitation_parse_peer(peer, 0, invitation.host, &invitation.port, err);
    if (status == 0)
        status = parse_token(text + len + 1, &invitation, err);
    if (status == 0)
        *ret_invitation = invitation;
    crypto_wipe(&invitation, sizeof invitation);
    return status;
}

static int token_error(const char *token, struct err *err)
{
    if (!*token)
        return err_set(err, ERR_INVALID, "the token is empty: it must hold an invitation or CLUSTER/SECRET");
    uint8_t secret[INVITATION_SECRET_BYTES];
    if (strlen(token) == SECRET_HEX && hex_decode(token, SECRET_HEX, secret, sizeof secret))
        return err_set(err, ERR_INVALID,
                       "the token holds a secret alone: without the cluster id this node could not know to whom "
                       "it shows it; use the whole invitation, or CLUSTER/SECRET from its end");
    return 0;
}

int invitation_find(const char *peer, const char *token, struct invitation *ret_invitation, struct err *err)
{
    if (strncmp(peer, SCHEME, strlen(SCHEME)) == 0)
        return invitation_parse(peer, ret_invitation, err);
    if (!token)
        return err_set(err, ERR_INVALID,
                       "to join through '%s' an invitation is needed: run `cmig-node invite` there and give the "
                       "whole text, or put it in --token-file or $CMIG_TOKEN",
                       peer);
    token += strspn(token, " \t\r\n");
    size_t len = strlen(token);
    while (len > 0 && strchr(" \t\r\n", token[len - 1]))
        len--;
    OWNED(owned_free) char *text = strndup(token, len);
    if (!text)
        return err_set(err, ERR_NOMEM, "no memory for a token");
    struct invitation invitation = {0};
    int status = token_error(text, err);
    if (status == 0)
        status = strncmp(text, SCHEME, strlen(SCHEME)) == 0 ? invitation_parse(text, &invitation, err)
                                                            : parse_token(text, &invitation, err);
    if (status == 0)
        status = invitation_parse_peer(peer, ADDR_DEFAULT_PORT, invitation.host, &invitation.port, err);
    if (status == 0)
        *ret_invitation = invitation;
    crypto_wipe(text, len);
    crypto_wipe(&invitation, sizeof invitation);
    return status;
}
