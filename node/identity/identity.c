#include "node/identity/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "node/base/file.h"
#include "node/identity/state.h"

#define SEED_BYTES 32
#define KEY_FILE_BYTES (2 * SEED_BYTES + 1) /* hex and newline */

/* ---- keys on disk ---- */

/* A key that others could have read is no secret any more: refuse it, do not mend it. */
static int check_key_file(int fd, const char *path, struct err *err)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return err_errno(err, errno, "cannot examine '%s'", path);
    if (!S_ISREG(status.st_mode) || status.st_uid != geteuid())
        return err_set(err, ERR_DENIED, "'%s' is not a file of this user", path);
    if (status.st_mode & (S_IRWXG | S_IRWXO))
        return err_set(err, ERR_DENIED,
                       "'%s' may be read by others (mode %04o): whoever did is this node; make a new one, or chmod 600 "
                       "if nobody did",
                       path, (unsigned)status.st_mode & 07777);
    if (status.st_size != KEY_FILE_BYTES)
        return err_set(err, ERR_CORRUPT, "'%s' is no key: %lld bytes instead of %d", path, (long long)status.st_size,
                       KEY_FILE_BYTES);
    return 0;
}

/* 1, or 0 if there is no such key. */
static int read_key(const struct identity *identity, const char *name, struct crypto_sign_key *ret_key, struct err *err)
{
    OWNED(owned_free) char *path = identity_state_path(identity, name);
    if (!path)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    OWNED(owned_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? 0 : err_errno(err, errno, "cannot open '%s'", path);
    int status = check_key_file(fd, path, err);
    if (status < 0)
        return status;
    char text[KEY_FILE_BYTES];
    uint8_t seed[SEED_BYTES];
    status = file_pread_all(fd, text, sizeof text, 0, path, err);
    if (status == 0 && (text[KEY_FILE_BYTES - 1] != '\n' || !hex_decode(text, KEY_FILE_BYTES - 1, seed, sizeof seed)))
        status = err_set(err, ERR_CORRUPT, "'%s' is no key: it must be %d lower-case hex digits and a newline", path,
                         2 * SEED_BYTES);
    if (status == 0)
        crypto_sign_key_from_seed(seed, ret_key);
    crypto_wipe(text, sizeof text);
    crypto_wipe(seed, sizeof seed);
    return status < 0 ? status : 1;
}

static int make_key(const struct identity *identity, const char *name, struct crypto_sign_key *ret_key, struct err *err)
{
    uint8_t seed[SEED_BYTES];
    char text[KEY_FILE_BYTES + 1];
    crypto_random(seed, sizeof seed);
    hex_encode(seed, sizeof seed, text);
    text[KEY_FILE_BYTES - 1] = '\n';
    int status = identity_state_write(identity, name, text, KEY_FILE_BYTES, err);
    if (status == 0)
        crypto_sign_key_from_seed(seed, ret_key);
    crypto_wipe(text, sizeof text);
    crypto_wipe(seed, sizeof seed);
    return status;
}

static int read_or_make_key(const struct identity *identity, const char *name, struct crypto_sign_key *ret_key,
                            struct err *err)
{
    int status = read_key(identity, name, ret_key, err);
    if (status == 0)
        status = make_key(identity, name, ret_key, err);
    return status < 0 ? status : 0;
}

/* ---- membership on disk ---- */

static int load_cluster(struct identity *identity, struct err *err)
{
    OWNED(buf_release) struct buf text = BUF(ID_HEX_SIZE);
    int status = identity_state_read(identity, "cluster", &text, err);
    if (status <= 0)
        return status;
    if (text.len == ID_HEX_SIZE && text.data[ID_HEX_SIZE - 1] == '\n') {
        text.data[ID_HEX_SIZE - 1] = '\0';
        if (id_parse_hex((const char *)text.data, &identity->cluster))
            return 1;
    }
    return err_set(err, ERR_CORRUPT, "'%s/cluster' is no cluster id", identity->dir);
}

static int load_chain(struct identity *identity, struct err *err)
{
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_CHAIN_BYTES);
    int found = identity_state_read(identity, "chain", &bytes, err);
    if (found <= 0)
        return found;
    char why[IDENTITY_WHY_SIZE] = "";
    struct chain chain;
    if (!identity_chain_decode(bytes.data, bytes.len, 1, &chain) || !identity_chain_is_sound(&chain, why))
        return err_set(err, ERR_CORRUPT, "'%s/chain' is damaged%s%s", identity->dir, why[0] ? ": " : "", why);
    if (memcmp(identity_chain_leaf(&chain)->subject, identity->key.public_key, CRYPTO_SIGN_PUBLIC_BYTES) != 0)
        return err_set(err, ERR_CORRUPT, "'%s/chain' is not for the key in node.key", identity->dir);
    if (!id_equal(&chain.cluster, &identity->cluster))
        return err_set(err, ERR_CORRUPT, "'%s/chain' and '%s/cluster' disagree", identity->dir, identity->dir);
    identity->chain = chain;
    identity->member = true;
    return 0;
}

/* The chain is written last: until it is there, the node is no member, and whatever was begun can be begun again. */
static int save_membership(struct identity *identity, const struct chain *chain, struct err *err)
{
    char cluster[ID_HEX_SIZE];
    id_hex(&chain->cluster, cluster);
    cluster[ID_HEX_SIZE - 1] = '\n';
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_CHAIN_BYTES);
    identity_chain_encode(chain, &bytes);
    if (bytes.failed)
        return err_set(err, ERR_NOMEM, "no memory for a chain");
    int status = identity_state_write(identity, "cluster", cluster, sizeof cluster, err);
    if (status == 0)
        status = identity_state_write(identity, "chain", bytes.data, bytes.len, err);
    if (status < 0)
        return status;
    identity->chain = *chain;
    identity->cluster = chain->cluster;
    identity->member = true;
    return 0;
}

/* ---- lifecycle ---- */

static int load(struct identity *identity, struct err *err)
{
    int status = file_make_dirs(identity->dir, 0700, err);
    OWNED(owned_fd) int lock = -1;
    if (status == 0)
        status = identity_state_lock(identity, &lock, err);
    if (status == 0)
        status = read_or_make_key(identity, "node.key", &identity->key, err);
    if (status < 0)
        return status;
    crypto_id_of(identity->key.public_key, sizeof identity->key.public_key, &identity->id);
    status = read_key(identity, "root.key", &identity->root, err);
    if (status < 0)
        return status;
    identity->root_loaded = status == 1;
    status = load_cluster(identity, err);
    if (status >= 0)
        status = load_chain(identity, err);
    if (status >= 0)
        status = identity_revocations_load(identity, err);
    return status;
}

int identity_open(const char *dir, struct identity **ret_identity, struct err *err)
{
    OWNED(owned_identity) struct identity *identity = calloc(1, sizeof *identity);
    if (!identity || !(identity->dir = strdup(dir)))
        return err_set(err, ERR_NOMEM, "no memory for an identity");
    int status = load(identity, err);
    if (status < 0)
        return err_wrap(err, "cannot load the identity in '%s'", dir);
    *ret_identity = STEAL(identity);
    return 0;
}

void identity_free(struct identity *identity)
{
    if (!identity)
        return;
    identity_revocations_free(identity);
    free(identity->dir);
    crypto_wipe(identity, sizeof *identity);
    free(identity);
}

/* A chain of one certificate: the root key vouches for the key in DIR. */
static void issue_from_root(const struct identity *identity, uint64_t wall_s, struct chain *ret_chain)
{
    struct certificate certificate;
    identity_certificate_fill(&certificate, identity->key.public_key, RIGHT_ALL, wall_s, 0, CHAIN_LAST_TIME_S);
    identity_chain_init(ret_chain, identity->root.public_key);
    identity_chain_append(ret_chain, &certificate, &identity->root);
}

int identity_init(struct identity *identity, uint64_t wall_s, struct err *err)
{
    char cluster[ID_SHORT_SIZE];
    if (identity->member)
        return err_set(err, ERR_EXISTS, "'%s' is a member of cluster '%s' already", identity->dir,
                       id_short(&identity->cluster, cluster));
    OWNED(owned_fd) int lock = -1;
    int status = identity_state_lock(identity, &lock, err);
    if (status == 0)
        status = read_or_make_key(identity, "root.key", &identity->root, err);
    if (status < 0)
        return status;
    identity->root_loaded = true;
    struct chain chain;
    issue_from_root(identity, wall_s, &chain);
    return save_membership(identity, &chain, err);
}

int identity_renew_from_root(struct identity *identity, uint64_t wall_s, struct err *err)
{
    if (!identity_has_root(identity))
        return err_set(err, ERR_UNSUPPORTED, "'%s' does not hold the root key of its cluster", identity->dir);
    struct chain chain;
    issue_from_root(identity, wall_s, &chain);
    return save_membership(identity, &chain, err);
}

int identity_adopt_chain(struct identity *identity, const uint8_t *bytes, size_t len_bytes, uint64_t wall_s,
                         struct err *err)
{
    struct chain chain;
    char why[IDENTITY_WHY_SIZE] = "it is malformed";
    if (!identity_chain_decode(bytes, len_bytes, 1, &chain))
        return err_set(err, ERR_AUTH, "the certificate that was issued is of no use: %s", why);
    if (identity_chain_judge(identity, &chain, 0, wall_s, why, NULL) < 0)
        return err_set(err, ERR_AUTH, "the certificate that was issued is of no use: %s", why);
    const struct certificate *leaf = identity_chain_leaf(&chain);
    if (memcmp(leaf->subject, identity->key.public_key, sizeof leaf->subject) != 0)
        return err_set(err, ERR_AUTH, "the certificate that was issued is of no use: it is for another key");
    if (identity->member && leaf->not_after < identity_expires(identity))
        return err_set(err, ERR_CONFLICT, "the certificate that was issued ends earlier than the present one");
    return save_membership(identity, &chain, err);
}

bool identity_should_renew(const struct identity *identity, uint64_t wall_s)
{
    if (!identity->member)
        return false;
    const struct certificate *leaf = identity_chain_leaf(&identity->chain);
    return wall_s >= leaf->not_after - (leaf->not_after - leaf->not_before) / 3;
}

int identity_expect_cluster(struct identity *identity, const struct id *cluster, struct err *err)
{
    char text[ID_SHORT_SIZE];
    if (identity->member && !id_equal(&identity->cluster, cluster))
        return err_set(err, ERR_CONFLICT, "'%s' is a member of another cluster, '%s'", identity->dir,
                       id_short(&identity->cluster, text));
    identity->cluster = *cluster;
    return 0;
}

/* ---- what this node is ---- */

bool identity_is_member(const struct identity *identity)
{
    return identity->member;
}

const uint8_t *identity_public_key(const struct identity *identity)
{
    return identity->key.public_key;
}

const struct id *identity_id(const struct identity *identity)
{
    return &identity->id;
}

const struct id *identity_cluster(const struct identity *identity)
{
    return &identity->cluster;
}

unsigned identity_rights(const struct identity *identity)
{
    return identity->member ? identity_chain_leaf(&identity->chain)->rights : 0;
}

uint64_t identity_expires(const struct identity *identity)
{
    return identity->member ? identity_chain_leaf(&identity->chain)->not_after : 0;
}

bool identity_has_root(const struct identity *identity)
{
    struct id cluster;
    crypto_id_of(identity->root.public_key, sizeof identity->root.public_key, &cluster);
    return identity->root_loaded && identity->member && id_equal(&cluster, &identity->cluster);
}

void identity_dh_secret(const struct identity *identity, uint8_t ret_secret[CRYPTO_DH_BYTES])
{
    crypto_dh_secret_of_sign(&identity->key, ret_secret);
}

const struct crypto_sign_key *identity_key(const struct identity *identity)
{
    return &identity->key;
}

void identity_sign(const struct identity *identity, const void *data, size_t len_bytes,
                   uint8_t ret_signature[CRYPTO_SIGNATURE_BYTES])
{
    crypto_signature_make(ret_signature, data, len_bytes, &identity->key);
}
