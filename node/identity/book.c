/*
 * The inviter's book of invitations, DIR/invitations: version u8 1, then each open invitation in 45 bytes: BLAKE2b-256
 * of the secret, uses left u32, rights u8, expiry u64. It is read and written whole, under the lock.
 */
#include <string.h>

#include "node/base/wire.h"
#include "node/identity/state.h"

#define BOOK_VERSION 1
#define ENTRY_BYTES (ID_BYTES + 4 + 1 + 8)
#define BOOK_MAX_BYTES (1 + LIMIT_INVITATIONS * ENTRY_BYTES)

struct entry {
    struct id hash;
    uint32_t uses;
    uint8_t rights;
    uint64_t expires_s;
};

struct book {
    size_t count;
    struct entry entries[LIMIT_INVITATIONS];
};

static int read_book(const struct identity *identity, struct book *book, struct err *err)
{
    book->count = 0;
    OWNED(buf_release) struct buf bytes = BUF(BOOK_MAX_BYTES);
    int status = identity_state_read(identity, "invitations", &bytes, err);
    if (status <= 0)
        return status;
    struct wire wire;
    wire_init(&wire, bytes.data, bytes.len);
    bool good = wire_get_u8(&wire) == BOOK_VERSION && wire_left(&wire) % ENTRY_BYTES == 0;
    while (good && wire_left(&wire) > 0) {
        struct entry *entry = &book->entries[book->count++];
        entry->hash = wire_get_id(&wire);
        entry->uses = wire_get_u32(&wire);
        entry->rights = wire_get_u8(&wire);
        entry->expires_s = wire_get_u64(&wire);
        good = entry->uses <= LIMIT_INVITATION_USES && (entry->rights & ~RIGHT_ALL) == 0;
    }
    if (!good)
        return err_set(err, ERR_CORRUPT,
                       "'%s/invitations' is damaged; remove it to begin a new book: open invitations are lost",
                       identity->dir);
    return 0;
}

static int write_book(const struct identity *identity, const struct book *book, struct err *err)
{
    OWNED(buf_release) struct buf bytes = BUF(BOOK_MAX_BYTES);
    wire_put_u8(&bytes, BOOK_VERSION);
    for (size_t i = 0; i < book->count; i++) {
        const struct entry *entry = &book->entries[i];
        wire_put_id(&bytes, &entry->hash);
        wire_put_u32(&bytes, entry->uses);
        wire_put_u8(&bytes, entry->rights);
        wire_put_u64(&bytes, entry->expires_s);
    }
    if (bytes.failed)
        return err_set(err, ERR_NOMEM, "no memory for the invitations");
    return identity_state_write(identity, "invitations", bytes.data, bytes.len, err);
}

static void drop_spent(struct book *book, uint64_t wall_s)
{
    size_t kept = 0;
    for (size_t i = 0; i < book->count; i++)
        if (book->entries[i].uses > 0 && book->entries[i].expires_s > wall_s)
            book->entries[kept++] = book->entries[i];
    book->count = kept;
}

static int check_terms(const struct identity *identity, unsigned uses, uint64_t ttl_s, unsigned rights, struct err *err)
{
    if (!(identity_rights(identity) & RIGHT_ADMIT))
        return err_set(err, ERR_DENIED, "this node may not admit others; invite from one that may");
    if (identity->chain.count == LIMIT_CHAIN_CERTS)
        return err_set(err, ERR_DENIED,
                       "this node was invited over %d others, the most there may be; invite from one of those",
                       LIMIT_CHAIN_CERTS - 1);
    if (uses == 0 || uses > LIMIT_INVITATION_USES)
        return err_set(err, ERR_INVALID, "%u uses: an invitation has 1 to %d", uses, LIMIT_INVITATION_USES);
    if (ttl_s == 0 || ttl_s > LIMIT_INVITATION_TTL_S)
        return err_set(err, ERR_INVALID, "%llu seconds: an invitation is good for 1 second to 30 days",
                       (unsigned long long)ttl_s);
    if (rights & ~identity_rights(identity))
        return err_set(err, ERR_DENIED, "an invitation cannot give rights that this node has not");
    return 0;
}

int invitation_create(struct identity *identity, unsigned uses, uint64_t ttl_s, unsigned rights, uint64_t wall_s,
                      uint8_t ret_secret[INVITATION_SECRET_BYTES], struct err *err)
{
    OWNED(owned_fd) int lock = -1;
    struct book book;
    int status = check_terms(identity, uses, ttl_s, rights, err);
    if (status == 0)
        status = identity_state_lock(identity, &lock, err);
    if (status == 0)
        status = read_book(identity, &book, err);
    if (status < 0)
        return status;
    drop_spent(&book, wall_s);
    if (book.count == LIMIT_INVITATIONS)
        return err_set(err, ERR_LIMIT, "%d invitations are open already", LIMIT_INVITATIONS);
    struct entry *entry = &book.entries[book.count++];
    *entry = (struct entry){.uses = uses, .rights = (uint8_t)rights, .expires_s = wall_s + ttl_s};
    uint8_t secret[INVITATION_SECRET_BYTES];
    crypto_random(secret, sizeof secret);
    crypto_id_of(secret, sizeof secret, &entry->hash);
    status = write_book(identity, &book, err);
    if (status == 0)
        memcpy(ret_secret, secret, sizeof secret);
    crypto_wipe(secret, sizeof secret);
    return status;
}

/* The open entry of this hash or NULL; looks at every entry whatever it finds, so that the time tells nothing. */
static struct entry *find_open(struct book *book, const struct id *hash, uint64_t wall_s)
{
    size_t found = LIMIT_INVITATIONS;
    for (size_t i = 0; i < book->count; i++) {
        const struct entry *entry = &book->entries[i];
        bool open = crypto_equal(entry->hash.b, hash->b, ID_BYTES) & (entry->uses > 0) & (entry->expires_s > wall_s);
        found = open ? i : found;
    }
    return found < LIMIT_INVITATIONS ? &book->entries[found] : NULL;
}

int invitation_redeem(struct identity *identity, const uint8_t secret[INVITATION_SECRET_BYTES], uint64_t wall_s,
                      unsigned *ret_rights, struct err *err)
{
    OWNED(owned_fd) int lock = -1;
    struct book book;
    int status = identity_state_lock(identity, &lock, err);
    if (status == 0)
        status = read_book(identity, &book, err);
    if (status < 0)
        return status;
    struct id hash;
    crypto_id_of(secret, INVITATION_SECRET_BYTES, &hash);
    struct entry *entry = find_open(&book, &hash, wall_s);
    if (!entry)
        return err_set(err, ERR_AUTH, "invitation not accepted");
    unsigned rights = entry->rights;
    entry->uses--;
    status = write_book(identity, &book, err);
    if (status == 0)
        *ret_rights = rights;
    return status;
}
