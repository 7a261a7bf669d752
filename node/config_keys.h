/* The table of keys, shared by config.c, which finds keys and values, and config_keys.c, which knows what they mean. */
#pragma once

#include "node/config.h"

struct config_entry {
    struct config_key key;
    /* Parse `value`, which is not empty, into the config; ERR_INVALID says what is wrong and what is allowed, without
     * naming the key. */
    int (*set)(struct config *config, const struct config_entry *entry, const char *value, struct err *err);
    size_t offset;     /* of the field that `set` fills */
    uint64_t min, max; /* of numbers */
    bool is_list;      /* may be repeated; `set` appends */
};

#define CONFIG_KEYS 21
const struct config_entry *config_entry_at(size_t index);
/* Place of the key of this name ('-' counts as '_'), or CONFIG_KEYS. */
size_t config_entry_find(const char *name, size_t name_len);

/* Empty a list before values of a higher rank are added. */
void config_entry_reset(struct config *config, const struct config_entry *entry);

/* The defaults of what is no text, to begin with. */
void config_init_numbers(struct config *config);

/* What the other defaults depend on. */
struct config_place {
    bool root;
    const char *home;        /* $HOME, may be NULL, as the next two */
    const char *state_home;  /* $XDG_STATE_HOME */
    const char *runtime_dir; /* $XDG_RUNTIME_DIR */
    const char *host_name;
    const char *setup_criu; /* the CRIU that tools/setup made, where the distribution's does not work; NULL if none */
};
/* Fill in whatever was not set. ERR_INVALID if there is no place for the state, or the socket's path is too long. */
int config_fill_defaults(struct config *config, const struct config_place *place, struct err *err);
