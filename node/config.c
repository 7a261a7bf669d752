#include "node/config.h"

#include <ini.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/base/file.h"
#include "node/config_keys.h"

#define LINE_MAX_BYTES (INI_MAX_LINE - 3) /* inih's own buffer, less its line end and NUL */
#define SUGGEST_DISTANCE 2                /* so many typing errors away is still meant */
#define HOST_NAME_SIZE 256
#define SHOWN_SIZE 80
#define SETUP_CRIU "/opt/cmig/bin/criu" /* where tools/setup puts it */

enum source { NOWHERE, FROM_FILE, FROM_FLAG };

struct loader {
    struct config *config; /* borrowed */
    enum source sources[CONFIG_KEYS];
};

/* ---- one key, one value, from wherever ---- */

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Levenshtein's distance, one row at a time; words longer than a key could be are far from all. */
static unsigned distance(const char *a, size_t a_len, const char *b)
{
    unsigned row[32];
    size_t b_len = strlen(b);
    if (a_len >= 32 || b_len >= 32)
        return 99;
    for (unsigned j = 0; j <= b_len; j++)
        row[j] = j;
    for (unsigned i = 1; i <= a_len; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= b_len; j++) {
            unsigned replace = diagonal + (a[i - 1] != b[j - 1] && !(a[i - 1] == '-' && b[j - 1] == '_'));
            diagonal = row[j];
            row[j] = least(replace, least(row[j], row[j - 1]) + 1);
        }
    }
    return row[b_len];
}

/* The known name that was probably meant, or NULL. */
static const char *nearest(const char *name, size_t len, const struct config_option *options)
{
    const char *best = NULL;
    unsigned best_distance = SUGGEST_DISTANCE + 1;
    for (size_t i = 0; i < CONFIG_KEYS; i++) {
        const char *known = config_entry_at(i)->key.name;
        if (distance(name, len, known) < best_distance) {
            best_distance = distance(name, len, known);
            best = known;
        }
    }
    for (; options && options->name; options++)
        if (distance(name, len, options->name) < best_distance) {
            best_distance = distance(name, len, options->name);
            best = options->name;
        }
    return best;
}

static int apply(struct loader *loader, size_t index, enum source source, const char *value, struct err *err)
{
    const struct config_entry *entry = config_entry_at(index);
    char shown[SHOWN_SIZE];
    enum source before = loader->sources[index];
    if (before == source && !entry->is_list)
        return err_set(err, ERR_INVALID, "'%s' is given twice", entry->key.name);
    if (before != source && entry->is_list)
        config_entry_reset(loader->config, entry);
    loader->sources[index] = source;
    int status = *value ? entry->set(loader->config, entry, value, err) : err_set(err, ERR_INVALID, "is empty");
    if (status == ERR_INVALID)
        err_wrap(err, "'%s = %s'", entry->key.name, log_text(value, strlen(value), shown, sizeof shown));
    return status;
}

/* ---- the file ---- */

/* inih neither stops at an error nor says which line it is at, so the reader counts lines for it. */
struct file_reader {
    struct loader *loader; /* borrowed */
    const char *at;
    const char *end;
    unsigned line;
    unsigned error_line; /* 0: none so far */
    struct err *err;
};

static void *file_error(struct file_reader *reader, const char *text)
{
    if (reader->error_line == 0) {
        reader->error_line = reader->line;
        err_set(reader->err, ERR_INVALID, "%s", text);
    }
    return NULL;
}

/* The next line for inih; NULL at the end or at a line that it could not hold whole. */
static char *read_line(char *text, int size, void *ctx)
{
    struct file_reader *reader = ctx;
    if (reader->at == reader->end || reader->error_line > 0)
        return NULL;
    reader->line++;
    const char *newline = memchr(reader->at, '\n', (size_t)(reader->end - reader->at));
    size_t len = (size_t)((newline ? newline : reader->end) - reader->at);
    if (len > LINE_MAX_BYTES || (int)len + 2 > size)
        return file_error(reader, "the line is too long; lists may be given in several lines");
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)reader->at[i] < ' ' && reader->at[i] != '\t' && reader->at[i] != '\r')
            return file_error(reader, "the line holds a control character");
    char *end = mempcpy(text, reader->at, len);
    memcpy(end, "\n", 2);
    reader->at = newline ? newline + 1 : reader->end;
    return text;
}

static int unknown_key(struct err *err, const char *name)
{
    char shown[SHOWN_SIZE];
    const char *meant = nearest(name, strlen(name), NULL);
    log_text(name, strlen(name), shown, sizeof shown);
    if (meant)
        return err_set(err, ERR_INVALID, "'%s' is no key; '%s' was perhaps meant", shown, meant);
    return err_set(err, ERR_INVALID, "'%s' is no key; cmig-node --help lists them", shown);
}

static int take_line(struct loader *loader, const char *section, const char *name, const char *value, struct err *err)
{
    size_t index = config_entry_find(name, strlen(name));
    if (index == CONFIG_KEYS)
        return unknown_key(err, name);
    const char *belongs = config_entry_at(index)->key.section;
    char shown[SHOWN_SIZE];
    if (strcmp(section, belongs) != 0)
        return err_set(err, ERR_INVALID, "'%s' belongs in [%s], not in [%s]", name, belongs,
                       log_text(section, strlen(section), shown, sizeof shown));
    return apply(loader, index, FROM_FILE, value, err);
}

static int on_pair(void *ctx, const char *section, const char *name, const char *value)
{
    struct file_reader *reader = ctx;
    if (reader->error_line == 0 && take_line(reader->loader, section, name, value, reader->err) < 0)
        reader->error_line = reader->line;
    return reader->error_line == 0;
}

static int parse_file(struct loader *loader, const char *text, size_t len_bytes, const char *name, struct err *err)
{
    struct err local = {0};
    struct file_reader reader = {.loader = loader, .at = text, .end = text + len_bytes, .err = &local};
    int line = ini_parse_stream(read_line, &reader, on_pair, &reader);
    if (line > 0 && (reader.error_line == 0 || (unsigned)line < reader.error_line))
        return err_set(err, ERR_INVALID, "%s:%d: this is no 'key = value', no '[section]' and no comment", name, line);
    if (reader.error_line > 0)
        return err_set(err, local.code, "%s:%u: %s", name, reader.error_line, local.text);
    return line < 0 ? err_set(err, ERR_NOMEM, "no memory to read '%s'", name) : 0;
}

static int read_config_file(struct loader *loader, const char *path, bool must_exist, struct err *err)
{
    OWNED(buf_release) struct buf text = BUF(CONFIG_MAX_BYTES);
    struct err local = {0};
    int status = file_read(path, &text, &local);
    if (status == ERR_NOTFOUND && !must_exist)
        return 0;
    if (status < 0)
        return err_set(err, status, "%s", local.text);
    return parse_file(loader, (const char *)text.data, text.len, path, err);
}

int config_check(const char *text, size_t len_bytes, const char *name, struct err *err)
{
    OWNED(owned_config) struct config *config = calloc(1, sizeof *config);
    if (!config)
        return err_set(err, ERR_NOMEM, "no memory for a configuration");
    if (len_bytes > CONFIG_MAX_BYTES)
        return err_set(err, ERR_LIMIT, "'%s' is larger than %d bytes", name, CONFIG_MAX_BYTES);
    struct loader loader = {.config = config};
    return parse_file(&loader, text, len_bytes, name, err);
}

/* ---- the flags ---- */

struct command_line {
    int argc;
    char **argv;
    int at;
    const struct config_option *options; /* borrowed; may be NULL */
    const char *file;                    /* of --config; borrowed */
};

/* A flag taken apart: --name=value, or --name and the next word. */
struct flag {
    const char *name;
    size_t name_len;
    const char *value; /* NULL without "=" */
};

static int flag_value(struct command_line *line, struct flag *flag, struct err *err)
{
    if (flag->value)
        return 0;
    if (line->at == line->argc)
        return err_set(err, ERR_INVALID, "--%.*s needs a value", (int)flag->name_len, flag->name);
    flag->value = line->argv[line->at++];
    return 0;
}

static bool flag_is(const struct flag *flag, const char *name)
{
    return strlen(name) == flag->name_len && strncmp(name, flag->name, flag->name_len) == 0;
}

static const struct config_option *find_option(const struct config_option *option, const struct flag *flag)
{
    for (; option && option->name; option++)
        if (flag_is(flag, option->name))
            return option;
    return NULL;
}

static int take_option(struct command_line *line, const struct config_option *option, struct flag *flag,
                       struct err *err)
{
    if (!option->unit && flag->value)
        return err_set(err, ERR_INVALID, "--%s takes no value", option->name);
    int status = option->unit ? flag_value(line, flag, err) : 0;
    if (status == 0)
        *option->ret_value = option->unit ? flag->value : "";
    return status;
}

static int unknown_flag(const struct command_line *line, const struct flag *flag, struct err *err)
{
    char shown[SHOWN_SIZE];
    const char *meant = nearest(flag->name, flag->name_len, line->options);
    log_text(flag->name, flag->name_len, shown, sizeof shown);
    if (meant)
        return err_set(err, ERR_INVALID, "--%s is no flag; --%s was perhaps meant", shown, meant);
    return err_set(err, ERR_INVALID, "--%s is no flag; --help lists them", shown);
}

/* A path given on the command line is one from where the user stands. */
static int take_key_flag(struct loader *loader, size_t index, const char *value, struct err *err)
{
    OWNED(owned_free) char *here = NULL;
    OWNED(owned_free) char *path = NULL;
    bool is_path = strcmp(config_entry_at(index)->key.unit, "PATH") == 0;
    if (is_path && *value && value[0] != '/') {
        here = getcwd(NULL, 0);
        path = here ? file_path("%s/%s", here, value) : NULL;
        if (!path)
            return err_set(err, ERR_IO, "cannot tell the present directory");
        value = path;
    }
    int status = apply(loader, index, FROM_FLAG, value, err);
    return status < 0 ? err_wrap(err, "command line") : 0;
}

/* First pass: --config, --help, --version and what belongs to the command. Second: the keys, over those of the file. */
static int take_flag(struct loader *loader, struct command_line *line, struct flag *flag, bool second, struct err *err)
{
    struct config *config = loader->config;
    const struct config_option *option = find_option(line->options, flag);
    size_t index = config_entry_find(flag->name, flag->name_len);
    if (flag_is(flag, "help"))
        config->help = true;
    else if (flag_is(flag, "version"))
        config->version = true;
    else if (option)
        return take_option(line, option, flag, err);
    else if (!flag_is(flag, "config") && index == CONFIG_KEYS)
        return unknown_flag(line, flag, err);
    else {
        int status = flag_value(line, flag, err);
        if (status < 0)
            return status;
        if (index < CONFIG_KEYS)
            return second ? take_key_flag(loader, index, flag->value, err) : 0;
        line->file = flag->value;
        return 0;
    }
    return flag->value ? err_set(err, ERR_INVALID, "--%.*s takes no value", (int)flag->name_len, flag->name) : 0;
}

static int take_word(struct config *config, const char *word, bool second, struct err *err)
{
    if (second)
        return 0;
    if (config->word_count == CONFIG_MAX_WORDS)
        return err_set(err, ERR_INVALID, "more than %d words on the command line", CONFIG_MAX_WORDS);
    config->words[config->word_count++] = word;
    return 0;
}

static int parse_line(struct loader *loader, struct command_line *line, bool second, struct err *err)
{
    bool flags = true;
    int status = 0;
    for (line->at = 1; line->at < line->argc && status == 0;) {
        const char *word = line->argv[line->at++];
        if (flags && strcmp(word, "--") == 0) {
            flags = false;
        } else if (flags && strcmp(word, "-h") == 0) {
            loader->config->help = true;
        } else if (flags && word[0] == '-' && word[1] == '-') {
            const char *equals = strchr(word, '=');
            struct flag flag = {.name = word + 2, .value = equals ? equals + 1 : NULL};
            flag.name_len = equals ? (size_t)(equals - flag.name) : strlen(flag.name);
            status = take_flag(loader, line, &flag, second, err);
        } else if (flags && word[0] == '-' && word[1]) {
            status = err_set(err, ERR_INVALID, "'%.8s' is no flag; they begin with --", word);
        } else {
            status = take_word(loader->config, word, second, err);
        }
    }
    return status;
}

/* ---- everything ---- */

static int fill_defaults(struct config *config, struct err *err)
{
    char host_name[HOST_NAME_SIZE] = "";
    gethostname(host_name, sizeof host_name - 1);
    struct config_place place = {.root = geteuid() == 0,
                                 .home = getenv("HOME"),
                                 .state_home = getenv("XDG_STATE_HOME"),
                                 .runtime_dir = getenv("XDG_RUNTIME_DIR"),
                                 .host_name = host_name,
                                 .setup_criu = access(SETUP_CRIU, X_OK) == 0 ? SETUP_CRIU : NULL};
    return config_fill_defaults(config, &place, err);
}

int config_load(int argc, char **argv, const struct config_option *options, struct config **ret_config, struct err *err)
{
    OWNED(owned_config) struct config *config = calloc(1, sizeof *config);
    if (!config)
        return err_set(err, ERR_NOMEM, "no memory for a configuration");
    config_init_numbers(config);
    struct loader loader = {.config = config};
    struct command_line line = {.argc = argc, .argv = argv, .options = options};
    int status = parse_line(&loader, &line, false, err);
    if (status == 0 && !config->help && !config->version) {
        status = read_config_file(&loader, line.file ? line.file : CONFIG_FILE, line.file != NULL, err);
        if (status == 0)
            status = parse_line(&loader, &line, true, err);
        if (status == 0)
            status = fill_defaults(config, err);
    }
    if (status < 0)
        return status;
    *ret_config = STEAL(config);
    return 0;
}

void config_free(struct config *config)
{
    if (!config)
        return;
    char *texts[] = {config->dir, config->socket, config->name, config->runc, config->criu, config->api_group};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free(texts[i]);
    for (size_t i = 0; i < config->peer_count; i++)
        free(config->peers[i]);
    free(config);
}
