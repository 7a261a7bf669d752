/* What the files of this room share: the identity in memory and its directory. */
#pragma once

#include "node/identity/chain.h"
#include "node/identity/identity.h"

struct revocation {
    struct id node;
    unsigned signer; /* 0: the root key, else its place in the chain; lower stands above higher */
    uint8_t *record; /* owned */
    size_t len;
};

struct identity {
    char *dir; /* owned */
    struct crypto_sign_key key;
    struct id id;
    bool root_loaded; /* of whatever cluster */
    struct crypto_sign_key root;
    bool member;
    struct chain chain;             /* of a member */
    struct id cluster;              /* own or expected; zeros if neither */
    struct revocation *revocations; /* owned, LIMIT_REVOCATIONS at most */
    size_t revocation_count;
};

/* DIR/name, allocated; NULL when out of memory. */
char *identity_state_path(const struct identity *identity, const char *name);
/* Replace DIR/name durably, mode 0600. */
int identity_state_write(const struct identity *identity, const char *name, const void *data, size_t len_bytes,
                         struct err *err);
/* Append the content of DIR/name to buf. 1, 0 if there is none, or an error. */
int identity_state_read(const struct identity *identity, const char *name, struct buf *buf, struct err *err);
/* Exclude other processes and other handles until the descriptor is closed. */
int identity_state_lock(const struct identity *identity, int *ret_fd, struct err *err);

int identity_revocations_load(struct identity *identity, struct err *err);
void identity_revocations_free(struct identity *identity);
/* Is a key of this chain revoked? Sets `why`. */
bool identity_chain_is_revoked(const struct identity *identity, const struct chain *chain, char why[IDENTITY_WHY_SIZE]);

/* Cluster, time, rights and revocation at once. ERR_AUTH with the outside text, `why` for the log. */
int identity_chain_judge(const struct identity *identity, const struct chain *chain, unsigned rights, uint64_t wall_s,
                         char why[IDENTITY_WHY_SIZE], struct err *err);

/* Issue a chain for `subject`, one longer than the own, and note it in DIR/issued, durably. */
int identity_issue(struct identity *identity, const uint8_t subject[CRYPTO_SIGN_PUBLIC_BYTES], unsigned rights,
                   uint64_t wall_s, struct chain *ret_chain, struct err *err);
/* The chain in DIR/issued that ends at `node`; ERR_NOTFOUND. */
int identity_issued_find(const struct identity *identity, const struct id *node, struct chain *ret_chain,
                         struct err *err);
