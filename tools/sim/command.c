#include "tools/sim/command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- flags ---- */

static bool parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret_value)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 0);
    if (errno || end == text || *end || *text == '-' || value < min || value > max)
        return false;
    *ret_value = value;
    return true;
}

static bool parse_share(const char *text, uint64_t max, double *ret_value)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= 0) || value > (double)max)
        return false;
    *ret_value = value;
    return true;
}

static bool parse_list(const char *text, uint64_t min, uint64_t max, struct command_list *ret_list)
{
    char copy[256];
    if (strlen(text) >= sizeof copy)
        return false;
    memcpy(copy, text, strlen(text) + 1);
    ret_list->count = 0;
    char *state;
    for (char *part = strtok_r(copy, ",", &state); part; part = strtok_r(NULL, ",", &state)) {
        if (ret_list->count == COMMAND_LIST_MAX || !parse_number(part, min, max, &ret_list->values[ret_list->count]))
            return false;
        ret_list->count++;
    }
    return ret_list->count > 0;
}

static bool set_flag(const struct flag *flag, const char *text, struct options *options)
{
    void *field = (char *)options + flag->offset;
    switch (flag->type) {
    case FLAG_NUMBER:
        return parse_number(text, flag->min, flag->max, field);
    case FLAG_SHARE:
        return parse_share(text, flag->max, field);
    case FLAG_LIST:
        return parse_list(text, flag->min, flag->max, field);
    case FLAG_TEXT:
        *(const char **)field = text;
        return true;
    case FLAG_SWITCH:
        *(bool *)field = strcmp(text, "yes") == 0;
        return true;
    }
    return false;
}

/* Does the command look at the flag? */
static bool is_taken(const struct command *command, const struct flag *flag)
{
    if (flag->of_model)
        return true;
    size_t len = strlen(flag->name);
    for (const char *at = command->flags; (at = strstr(at, flag->name)); at++)
        if (at[-1] == ' ' && (at[len] == ' ' || at[len] == '\0'))
            return true;
    return false;
}

static const struct flag *find_flag(const struct program *program, const struct command *command, const char *argument)
{
    for (size_t i = 0; i < program->n_flags; i++) {
        const struct flag *flag = &program->flags[i];
        if (strncmp(argument, "--", 2) == 0 && strcmp(argument + 2, flag->name) == 0)
            return is_taken(command, flag) ? flag : NULL;
    }
    return NULL;
}

static bool parse_arguments(const struct program *program, const struct command *command, int count, char **arguments,
                            struct options *options)
{
    for (int i = 0; i < count; i++) {
        const struct flag *flag = find_flag(program, command, arguments[i]);
        if (!flag) {
            fprintf(stderr, "%s %s: '%s' is no flag of it; see %s %s --help\n", program->name, command->name,
                    arguments[i], program->name, command->name);
            return false;
        }
        const char *value = flag->type == FLAG_SWITCH ? "yes" : i + 1 < count ? arguments[++i] : NULL;
        if (!value || !set_flag(flag, value, options)) {
            fprintf(stderr, "%s %s: --%s does not take '%s'\n", program->name, command->name, flag->name,
                    value ? value : "");
            return false;
        }
    }
    return true;
}

/* The command's own default of a flag, from "name=value name=value"; else the usual one. NULL for none. */
static const char *default_of(const struct command *command, const struct flag *flag, char *text, size_t text_size)
{
    size_t len = strlen(flag->name);
    const char *at = command->defaults;
    while (at && *at) {
        size_t word = strcspn(at, " ");
        if (strncmp(at, flag->name, len) == 0 && at[len] == '=') {
            snprintf(text, text_size, "%.*s", (int)(word - len - 1), at + len + 1);
            return text;
        }
        at += word + (at[word] == ' ');
    }
    return flag->usual;
}

static bool parse(const struct program *program, const struct command *command, int count, char **arguments,
                  struct options *options)
{
    for (size_t i = 0; i < program->n_flags; i++) {
        char text[128];
        const char *value = default_of(command, &program->flags[i], text, sizeof text);
        if (value)
            set_flag(&program->flags[i], value, options);
    }
    return parse_arguments(program, command, count, arguments, options);
}

/* ---- help ---- */

static void help_of_flag(const struct command *command, const struct flag *flag)
{
    static const char *const words[] = {[FLAG_NUMBER] = " N",
                                        [FLAG_SHARE] = " PERCENT",
                                        [FLAG_LIST] = " N,N",
                                        [FLAG_TEXT] = " DIR",
                                        [FLAG_SWITCH] = ""};
    char left[64];
    char text[128];
    const char *usual = default_of(command, flag, text, sizeof text);
    snprintf(left, sizeof left, "--%s%s", flag->name, words[flag->type]);
    printf("  %-24s%s", left, flag->what);
    if (usual && flag->type != FLAG_SWITCH)
        printf(" (%s)", usual);
    printf("\n");
}

static void help_of_models(const struct program *program)
{
    static const struct command any = {0};
    for (size_t i = 0; i < program->n_flags; i++)
        if (program->flags[i].of_model)
            help_of_flag(&any, &program->flags[i]);
}

static void help_of(const struct program *program, const struct command *command)
{
    printf("usage: %s %s [FLAGS]\n\n%s\n\nflags:\n", program->name, command->name, command->what);
    for (size_t i = 0; i < program->n_flags; i++)
        if (!program->flags[i].of_model && is_taken(command, &program->flags[i]))
            help_of_flag(command, &program->flags[i]);
    help_of_models(program);
    printf("\nexample:\n  %s\n", command->example);
}

static void help(const struct program *program)
{
    printf("usage: %s COMMAND [FLAGS]\n\n%s\n\ncommands:\n", program->name, program->intro);
    for (size_t i = 0; i < program->n_commands; i++)
        printf("  %-12s%s\n", program->commands[i].name, program->commands[i].what);
    printf("\nflags of all commands (%s COMMAND --help has the others):\n", program->name);
    help_of_models(program);
    printf("\nexamples:\n");
    for (size_t i = 0; i < program->n_commands; i++)
        printf("  %s\n", program->commands[i].example);
    printf("\nWhat is modelled and how to read the results: docs/simulator.md\n");
}

static bool wants_help(int count, char **arguments)
{
    for (int i = 0; i < count; i++)
        if (strcmp(arguments[i], "--help") == 0 || strcmp(arguments[i], "-h") == 0)
            return true;
    return false;
}

/* ---- the program ---- */

static const struct command *find_command(const struct program *program, const char *name)
{
    for (size_t i = 0; i < program->n_commands; i++)
        if (strcmp(name, program->commands[i].name) == 0)
            return &program->commands[i];
    return NULL;
}

int command_main(const struct program *program, int argc, char **argv, struct options *options)
{
    const struct command *command = argc > 1 ? find_command(program, argv[1]) : NULL;
    if (!command && (argc < 2 || wants_help(argc - 1, argv + 1) || strcmp(argv[1], "help") == 0)) {
        help(program);
        return argc < 2 ? 2 : 0;
    }
    if (!command) {
        fprintf(stderr, "%s: there is no command '%s'; see %s --help\n", program->name, argv[1], program->name);
        return 2;
    }
    if (wants_help(argc - 2, argv + 2)) {
        help_of(program, command);
        return 0;
    }
    if (!parse(program, command, argc - 2, argv + 2, options))
        return 2;
    return command->run(options);
}
