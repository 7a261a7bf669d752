#include "node/identity/state.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "node/base/file.h"
#include "node/base/wire.h"

#define ISSUED_ENTRY_BYTES (2 + LIMIT_CHAIN_BYTES) /* u16 length, chain, zeros */

char *identity_state_path(const struct identity *identity, const char *name)
{
    return file_path("%s/%s", identity->dir, name);
}

int identity_state_write(const struct identity *identity, const char *name, const void *data, size_t len_bytes,
                         struct err *err)
{
    OWNED(owned_free) char *path = identity_state_path(identity, name);
    if (!path)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    return file_write_atomic(path, data, len_bytes, 0600, err);
}

int identity_state_read(const struct identity *identity, const char *name, struct buf *buf, struct err *err)
{
    OWNED(owned_free) char *path = identity_state_path(identity, name);
    if (!path)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    struct err local = {0};
    int status = file_read(path, buf, &local);
    if (status == ERR_NOTFOUND)
        return 0;
    return status < 0 ? err_set(err, status, "%s", local.text) : 1;
}

int identity_state_lock(const struct identity *identity, int *ret_fd, struct err *err)
{
    OWNED(owned_free) char *path = identity_state_path(identity, "identity.lock");
    if (!path)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    OWNED(owned_fd) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_errno(err, errno, "cannot open '%s'", path);
    while (flock(fd, LOCK_EX) < 0)
        if (errno != EINTR)
            return err_errno(err, errno, "cannot lock '%s'", path);
    *ret_fd = steal_fd(&fd);
    return 0;
}

static int open_issued(const struct identity *identity, int *ret_fd, uint64_t *ret_entries, struct err *err)
{
    OWNED(owned_free) char *path = identity_state_path(identity, "issued");
    if (!path)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    OWNED(owned_fd) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) < 0)
        return err_errno(err, errno, "cannot open '%s'", path);
    *ret_entries = (uint64_t)status.st_size / ISSUED_ENTRY_BYTES; /* a torn last entry is written over */
    *ret_fd = steal_fd(&fd);
    return 0;
}

/* The chain at `entry` of DIR/issued; one that does not decode, as after a torn write, is an empty one. */
static int read_issued(int fd, uint64_t entry, struct chain *ret_chain, struct err *err)
{
    uint8_t bytes[ISSUED_ENTRY_BYTES];
    int status = file_pread_all(fd, bytes, sizeof bytes, entry * sizeof bytes, "issued", err);
    if (status < 0)
        return status;
    size_t len = wire_load_u16(bytes);
    if (len > LIMIT_CHAIN_BYTES || !identity_chain_decode(bytes + 2, len, 1, ret_chain))
        ret_chain->count = 0;
    return 0;
}

/* Where a chain is to be noted: over the one of the same key, else over an expired one, else at the end. */
static int place_issued(int fd, uint64_t entries, const uint8_t *subject, uint64_t wall_s, uint64_t *ret_entry,
                        struct err *err)
{
    uint64_t place = entries;
    for (uint64_t i = 0; i < entries; i++) {
        struct chain chain;
        int status = read_issued(fd, i, &chain, err);
        if (status < 0)
            return status;
        const struct certificate *leaf = chain.count > 0 ? identity_chain_leaf(&chain) : NULL;
        if (leaf && memcmp(leaf->subject, subject, sizeof leaf->subject) == 0) {
            *ret_entry = i;
            return 0;
        }
        if (place == entries && (!leaf || leaf->not_after + IDENTITY_GRACE_S < wall_s))
            place = i;
    }
    if (place >= LIMIT_ISSUED)
        return err_set(err, ERR_LIMIT, "this node has admitted %d others, the most it can keep account of",
                       LIMIT_ISSUED);
    *ret_entry = place;
    return 0;
}

static int note_issued(const struct identity *identity, const struct chain *chain, uint64_t wall_s, struct err *err)
{
    OWNED(buf_release) struct buf text = BUF(LIMIT_CHAIN_BYTES);
    identity_chain_encode(chain, &text);
    if (text.failed)
        return err_set(err, ERR_NOMEM, "no memory for a chain");
    uint8_t bytes[ISSUED_ENTRY_BYTES] = {0};
    wire_store_u16(bytes, (uint16_t)text.len);
    memcpy(bytes + 2, text.data, text.len);

    OWNED(owned_fd) int lock = -1;
    OWNED(owned_fd) int fd = -1;
    uint64_t entries = 0, entry = 0;
    int status = identity_state_lock(identity, &lock, err);
    if (status == 0)
        status = open_issued(identity, &fd, &entries, err);
    if (status == 0)
        status = place_issued(fd, entries, identity_chain_leaf(chain)->subject, wall_s, &entry, err);
    if (status == 0)
        status = file_pwrite_all(fd, bytes, sizeof bytes, entry * sizeof bytes, "issued", err);
    if (status == 0)
        status = file_sync(fd, "issued", err);
    return status;
}

int identity_issued_find(const struct identity *identity, const struct id *node, struct chain *ret_chain,
                         struct err *err)
{
    OWNED(owned_fd) int fd = -1;
    uint64_t entries;
    int status = open_issued(identity, &fd, &entries, err);
    if (status < 0)
        return status;
    for (uint64_t i = 0; i < entries; i++) {
        struct chain chain;
        struct id subject;
        status = read_issued(fd, i, &chain, err);
        if (status < 0)
            return status;
        if (chain.count == 0)
            continue;
        crypto_id_of(identity_chain_leaf(&chain)->subject, CRYPTO_SIGN_PUBLIC_BYTES, &subject);
        if (id_equal(&subject, node)) {
            *ret_chain = chain;
            return 0;
        }
    }
    char text[ID_SHORT_SIZE];
    return err_set(err, ERR_NOTFOUND, "no certificate chain of node '%s' is known here", id_short(node, text));
}

int identity_issue(struct identity *identity, const uint8_t subject[CRYPTO_SIGN_PUBLIC_BYTES], unsigned rights,
                   uint64_t wall_s, struct chain *ret_chain, struct err *err)
{
    if (!(identity_rights(identity) & RIGHT_ADMIT) || identity->chain.count == LIMIT_CHAIN_CERTS)
        return err_set(err, ERR_DENIED, "this node may not admit others");
    const struct certificate *own = identity_chain_leaf(&identity->chain);
    rights &= own->rights;
    if (identity->chain.count + 1 == LIMIT_CHAIN_CERTS)
        rights &= ~RIGHT_ADMIT; /* nobody could follow */
    struct certificate certificate;
    identity_certificate_fill(&certificate, subject, rights, wall_s, own->not_before, own->not_after);
    if (certificate.not_before >= certificate.not_after)
        return err_set(err, ERR_DENIED, "the certificate of this node has expired");
    struct chain chain = identity->chain;
    identity_chain_append(&chain, &certificate, &identity->key);
    int status = note_issued(identity, &chain, wall_s, err);
    if (status == 0)
        *ret_chain = chain;
    return status;
}
