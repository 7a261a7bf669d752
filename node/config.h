/*
 * What the operator decides: one INI file and flags, both read by one table of keys (config_keys), which also writes
 * the help text and the example file. A flag wins over the file, the file over the default.
 *
 * Every key of the file is a flag of the same name ("log_max" is --log-max or --log_max), given as --key VALUE or
 * --key=VALUE. Keys that hold lists may be repeated; other keys may be given once in the file and once as a flag.
 * Errors name the file and line or the flag, the key, what is wrong with the value, and what is allowed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/addr.h"
#include "node/base/buf.h"
#include "node/base/err.h"
#include "node/base/log.h"
#include "node/base/scope.h"
#include "node/mesh/policy.h"
#include "transfer/transfer.h"

#define CONFIG_FILE "/etc/cmig/node.conf"
#define CONFIG_MAX_BYTES 65536
#define CONFIG_MAX_LISTEN 4
#define CONFIG_MAX_PEERS 32
#define CONFIG_MAX_WORDS 16

/* Free disk to keep: an amount of bytes, or a share of the file system with a cap. */
struct config_floor {
    unsigned percent; /* 0 to 99; 0: `bytes` is the amount */
    uint64_t bytes;   /* with a percentage: at most so much, 0 for no cap */
};

struct config {
    char *dir; /* owned, as all the strings here; absolute */
    char *socket;
    char *name; /* for people; never an identity */
    enum log_level log;
    unsigned workers; /* threads for blocking work */

    struct addr listen[CONFIG_MAX_LISTEN];
    size_t listen_count;
    struct addr advertise;         /* family 0: discovered */
    char *peers[CONFIG_MAX_PEERS]; /* HOST[:PORT], checked for form (invitation_parse_peer) */
    size_t peer_count;
    struct exchange_limits bandwidth;
    struct policy policy;
    uint32_t price; /* of a GiB from this node, in thousandths of whatever unit the operators agree on */
    unsigned dht_records;
    unsigned block_contacts; /* of one address block in the DHT's table; 0: not limited */

    uint64_t quota_bytes; /* 0: no quota, the floor alone decides */
    struct config_floor floor;
    unsigned scrub_days; /* in which all of the store is read and checked once; 0: never by itself */

    char *runc; /* a path, or a name to look for in $PATH */
    char *criu;
    uint64_t log_max_bytes; /* of each container's log */

    char *api_group;
    struct addr resp; /* family 0: no gateway for Redis clients */

    const char *words[CONFIG_MAX_WORDS]; /* borrowed from argv: what is no flag, the command and its operands */
    size_t word_count;
    bool help;    /* --help was given: nothing else was checked */
    bool version; /* --version, likewise */
};

/* A flag of one command that is no key of the file: "--uses N". */
struct config_option {
    const char *name; /* "uses" */
    const char *unit; /* "N", or NULL for a flag without a value */
    const char *help;
    const char **ret_value; /* borrowed from argv; "" for a flag without a value */
};

/* Everything at once: flags, then the file (--config FILE, else CONFIG_FILE if it is there), then defaults. argv[0] is
 * skipped; "--" ends the flags. `options` (may be NULL) end with a name of NULL. ERR_INVALID with a text for the user.
 */
int config_load(int argc, char **argv, const struct config_option *options, struct config **ret_config,
                struct err *err);
void config_free(struct config *config);
OWNED_DEFINE(owned_config, struct config, config_free)

/* Check the text of a configuration file; `name` is for errors. */
int config_check(const char *text, size_t len_bytes, const char *name, struct err *err);

/* One key, for documentation and its checks. */
struct config_key {
    const char *name;
    const char *section;
    const char *unit;         /* how the value is written: "BYTES", "PATH", "ADDR:PORT" */
    const char *default_text; /* for people */
    const char *example;      /* a good value; the default where that can be written */
    const char *help;         /* sentences */
};
/* The key at `index`, false past the last. */
bool config_key_at(size_t index, struct config_key *ret_key);

/* Append the flags as lines for --help; the whole of docs/node.conf. */
void config_help(struct buf *buf);
void config_example(struct buf *buf);

/* "512", "64K", "10M", "20G", "1.5T" (binary); false for anything else or for more than 2^63. */
bool config_parse_bytes(const char *text, uint64_t *ret_bytes);
