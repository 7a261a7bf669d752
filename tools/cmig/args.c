#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/base/file.h"
#include "node/base/id.h"
#include "tools/cmig/cmig.h"

const struct flag common_flags[FLAGS_MAX] = {
    {"socket", 0, "PATH", "the daemon's socket; else $" API_SOCKET_ENV ", the user's own, " API_DEFAULT_SOCKET},
    {"json", 0, NULL, "print the daemon's JSON, errors too"},
    {"full", 0, NULL, "whole ids and digests in tables"},
    {"help", 'h', NULL, "flags and examples of the command"},
};

int args_misuse(struct cmig *cmig, struct err *err, const char *format, ...)
{
    va_list args;
    char text[ERR_TEXT_SIZE];
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    cmig->misused = true;
    return err_set(err, ERR_INVALID, "%s", text);
}

/* The flag that a word of this name means: len letters long, or one letter if it was given with one dash. */
static const struct flag *find_flag(const struct command *command, const char *name, size_t len, bool letter)
{
    const struct flag *const tables[] = {command->flags, common_flags};
    for (size_t t = 0; t < 2; t++) {
        for (const struct flag *flag = tables[t]; flag < tables[t] + FLAGS_MAX && flag->name; flag++) {
            if (letter ? flag->letter == *name && len == 1
                       : strlen(flag->name) == len && memcmp(flag->name, name, len) == 0)
                return flag;
        }
    }
    return NULL;
}

/* Take one flag from the front of argv: "--name VALUE", "--name=VALUE", "-n VALUE", "-nVALUE". Returns the words used.
 */
static int take_flag(struct cmig *cmig, int argc, char **argv, struct err *err)
{
    bool letter = argv[0][1] != '-';
    const char *name = argv[0] + (letter ? 1 : 2);
    const char *equals = letter ? NULL : strchr(name, '=');
    size_t len = letter ? 1 : equals ? (size_t)(equals - name) : strlen(name);
    const struct flag *flag = find_flag(cmig->command, name, len, letter);
    if (!flag)
        return args_misuse(cmig, err, "'%s' is no flag of this command", argv[0]);
    const char *value = equals ? equals + 1 : letter && name[1] ? name + 1 : NULL;
    if (!flag->value && value)
        return args_misuse(cmig, err, "the flag --%s takes no value", flag->name);
    int used = 1;
    if (flag->value && !value) {
        if (argc < 2)
            return args_misuse(cmig, err, "the flag --%s needs a value: %s", flag->name, flag->value);
        value = argv[1];
        used = 2;
    }
    cmig->given[cmig->given_count++] = (struct given){flag, value ? value : ""};
    return used;
}

static int take_words(struct cmig *cmig, int argc, char **argv, struct err *err)
{
    bool flags = true;
    for (int i = 0; i < argc;) {
        if (flags && strcmp(argv[i], "--") == 0) {
            flags = false;
            i++;
        } else if (flags && argv[i][0] == '-' && argv[i][1] != '\0') {
            int used = take_flag(cmig, argc - i, argv + i, err);
            if (used < 0)
                return used;
            i += used;
        } else {
            cmig->operands[cmig->operand_count++] = argv[i++];
            /* "--" may stand between the first operand and the other program's words. */
            if (flags && cmig->command->words) {
                flags = false;
                i += i < argc && strcmp(argv[i], "--") == 0;
            }
        }
    }
    return 0;
}

static int check_operands(struct cmig *cmig, struct err *err)
{
    const struct command *command = cmig->command;
    if (cmig->operand_count < command->min)
        return args_misuse(cmig, err, "something is missing: cmig %s %s", command->name, command->operands);
    if (command->max >= 0 && cmig->operand_count > command->max)
        return args_misuse(cmig, err, "'%s' is too much: cmig %s%s%s", cmig->operands[command->max], command->name,
                           *command->operands ? " " : "", command->operands);
    for (int i = 0; i < (command->words ? 1 : cmig->operand_count); i++) {
        if (*cmig->operands[i] == '\0')
            return args_misuse(cmig, err, "an operand is empty: cmig %s %s", command->name, command->operands);
    }
    return 0;
}

/* Where an ordinary user's own daemon listens (socket in cmig.conf(5)), if there is a socket. */
static char *find_own_socket(void)
{
    const char *const places[][2] = {{getenv("XDG_RUNTIME_DIR"), "cmig/node.sock"},
                                     {getenv("XDG_STATE_HOME"), "cmig/node.sock"},
                                     {getenv("HOME"), ".local/state/cmig/node.sock"}};
    for (size_t i = 0; geteuid() != 0 && i < sizeof places / sizeof places[0]; i++) {
        char *path = places[i][0] && places[i][0][0] == '/' ? file_path("%s/%s", places[i][0], places[i][1]) : NULL;
        if (path && access(path, F_OK) == 0)
            return path;
        free(path);
    }
    return NULL;
}

static const char *find_socket(struct cmig *cmig)
{
    const char *given = args_flag(cmig, "socket"), *from_environment = getenv(API_SOCKET_ENV);
    if (given)
        return given;
    if (from_environment && *from_environment)
        return from_environment;
    cmig->own_socket = find_own_socket();
    return cmig->own_socket ? cmig->own_socket : API_DEFAULT_SOCKET;
}

int args_read(struct cmig *cmig, int argc, char **argv, struct err *err)
{
    cmig->operands = calloc((size_t)argc + 1, sizeof *cmig->operands);
    cmig->given = calloc((size_t)argc + 1, sizeof *cmig->given);
    if (!cmig->operands || !cmig->given)
        return err_set(err, ERR_NOMEM, "out of memory");
    int code = take_words(cmig, argc, argv, err);
    cmig->json = args_flag(cmig, "json") != NULL; /* before anything is refused: errors too are JSON then */
    cmig->full = args_flag(cmig, "full") != NULL;
    if (code < 0)
        return code;
    cmig->socket = find_socket(cmig);
    return check_operands(cmig, err);
}

void args_release(struct cmig *cmig)
{
    free(cmig->operands);
    free(cmig->given);
    free(cmig->own_socket);
}

const char *args_next(const struct cmig *cmig, const char *name, size_t *cursor)
{
    while (*cursor < cmig->given_count) {
        const struct given *given = &cmig->given[(*cursor)++];
        if (strcmp(given->flag->name, name) == 0)
            return given->value;
    }
    return NULL;
}

const char *args_flag(const struct cmig *cmig, const char *name)
{
    const char *value, *last = NULL;
    size_t cursor = 0;
    while ((value = args_next(cmig, name, &cursor)))
        last = value;
    return last;
}

int args_check_digest(struct cmig *cmig, const char *text, struct err *err)
{
    struct id digest;
    if (!digest_parse(text, &digest))
        return args_misuse(cmig, err, "'%s' is no digest: it is sha256: and 64 digits from 0 to f, as 'cmig ls' shows",
                           text);
    return 0;
}

int args_number(struct cmig *cmig, const char *name, uint64_t fallback, uint64_t max, uint64_t *ret_number,
                struct err *err)
{
    const char *text = args_flag(cmig, name);
    size_t len = text ? strlen(text) : 0;
    if (!text) {
        *ret_number = fallback;
        return 0;
    }
    uint64_t number = strtoull(text, NULL, 10);
    if (len == 0 || len > 18 || strspn(text, "0123456789") != len || number > max)
        return args_misuse(cmig, err, "--%s takes a whole number from 0 to %llu, not '%s'", name,
                           (unsigned long long)max, text);
    *ret_number = number;
    return 0;
}
