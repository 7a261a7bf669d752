#include "dht/book.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/scope.h"
#include "node/base/wire.h"

#define PAGE_ENTRIES 64
#define FIRST_SLOTS 64

struct entry {
    struct dht_contact contact;
    uint32_t refs;        /* 0: free */
    dht_handle next_free; /* while free */
};

struct dht_book {
    struct entry **pages; /* owned; entry h is in page (h - 1) / PAGE_ENTRIES, and stays where it is */
    size_t page_count;
    dht_handle free;   /* the first free entry, or 0 */
    dht_handle *slots; /* owned; open addressing by key, 0: free */
    size_t slot_count; /* a power of two; at least twice the entries */
    size_t count;
    uint64_t seed;
};

OWNED_DEFINE(release_book, struct dht_book, dht_book_free)

int dht_book_make(uint64_t seed, struct dht_book **ret_book, struct err *err)
{
    OWNED(release_book) struct dht_book *book = calloc(1, sizeof *book);
    if (book)
        book->slots = calloc(FIRST_SLOTS, sizeof *book->slots);
    if (!book || !book->slots)
        return err_set(err, ERR_NOMEM, "no memory for the book of contacts");
    book->slot_count = FIRST_SLOTS;
    book->seed = seed;
    *ret_book = STEAL(book);
    return 0;
}

int dht_book_new(struct dht_book **ret_book, struct err *err)
{
    return dht_book_make(0, ret_book, err);
}

void dht_book_free(struct dht_book *book)
{
    if (!book)
        return;
    for (size_t i = 0; i < book->page_count; i++)
        free(book->pages[i]);
    free(book->pages);
    free(book->slots);
    free(book);
}

static struct entry *entry_at(const struct dht_book *book, dht_handle handle)
{
    return &book->pages[(handle - 1) / PAGE_ENTRIES][(handle - 1) % PAGE_ENTRIES];
}

const struct dht_contact *dht_book_at(const struct dht_book *book, dht_handle handle)
{
    return &entry_at(book, handle)->contact;
}

/* ---- finding ---- */

static size_t home_of(const struct dht_book *book, const uint8_t *public_key)
{
    uint64_t hash = (wire_load_u64(public_key) ^ book->seed) * 0x9e3779b97f4a7c15u; /* Fibonacci hashing */
    return (size_t)(hash >> 32) & (book->slot_count - 1);
}

static bool is_key(const struct entry *entry, const uint8_t *public_key)
{
    return memcmp(entry->contact.public_key, public_key, CRYPTO_SIGN_PUBLIC_BYTES) == 0;
}

dht_handle dht_book_next(const struct dht_book *book, const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES],
                         size_t *cursor)
{
    size_t home = home_of(book, public_key);
    dht_handle handle;
    while ((handle = book->slots[(home + *cursor) & (book->slot_count - 1)])) {
        ++*cursor;
        if (is_key(entry_at(book, handle), public_key))
            return handle;
    }
    return 0;
}

struct id dht_book_id_of(const struct dht_book *book, const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES])
{
    size_t cursor = 0;
    dht_handle known = book ? dht_book_next(book, public_key, &cursor) : 0;
    struct id id;
    if (known)
        return entry_at(book, known)->contact.id;
    crypto_id_of(public_key, CRYPTO_SIGN_PUBLIC_BYTES, &id);
    return id;
}

static dht_handle find(const struct dht_book *book, const struct dht_contact *contact)
{
    dht_handle handle;
    for (size_t cursor = 0; (handle = dht_book_next(book, contact->public_key, &cursor));)
        if (addr_equal(&entry_at(book, handle)->contact.addr, &contact->addr))
            return handle;
    return 0;
}

/* The slot that has this handle, which is there. */
static size_t slot_of(const struct dht_book *book, dht_handle handle)
{
    size_t at = home_of(book, entry_at(book, handle)->contact.public_key);
    while (book->slots[at] != handle)
        at = (at + 1) & (book->slot_count - 1);
    return at;
}

/* Into the first free slot from its home on. */
static void put_in_slot(struct dht_book *book, dht_handle handle)
{
    size_t at = home_of(book, entry_at(book, handle)->contact.public_key);
    while (book->slots[at])
        at = (at + 1) & (book->slot_count - 1);
    book->slots[at] = handle;
}

/* ---- making and dropping ---- */

static bool grow_slots(struct dht_book *book)
{
    dht_handle *before = book->slots;
    size_t count = book->slot_count;
    dht_handle *slots = calloc(count * 2, sizeof *slots);
    if (!slots)
        return false;
    book->slots = slots;
    book->slot_count = count * 2;
    for (size_t i = 0; i < count; i++)
        if (before[i])
            put_in_slot(book, before[i]);
    free(before);
    return true;
}

/* One page more, its entries free. The array of pages doubles whenever its size reaches a power of two. */
static bool add_page(struct dht_book *book)
{
    size_t count = book->page_count;
    if ((count & (count - 1)) == 0) {
        struct entry **pages = realloc(book->pages, (count ? count * 2 : 1) * sizeof *pages);
        if (!pages)
            return false;
        book->pages = pages;
    }
    struct entry *page = calloc(PAGE_ENTRIES, sizeof *page);
    if (!page)
        return false;
    book->pages[book->page_count++] = page;
    for (size_t i = PAGE_ENTRIES; i-- > 0;) {
        page[i].next_free = book->free;
        book->free = (dht_handle)(count * PAGE_ENTRIES + i + 1);
    }
    return true;
}

dht_handle dht_book_ref(struct dht_book *book, const struct dht_contact *contact)
{
    dht_handle known = find(book, contact);
    if (known) {
        entry_at(book, known)->refs++;
        return known;
    }
    if (book->count >= LIMIT_DHT_BOOK || (book->count * 2 >= book->slot_count && !grow_slots(book)) ||
        (!book->free && !add_page(book)))
        return 0;
    dht_handle handle = book->free;
    struct entry *entry = entry_at(book, handle);
    book->free = entry->next_free;
    *entry = (struct entry){.contact = *contact, .refs = 1};
    put_in_slot(book, handle);
    book->count++;
    return handle;
}

/* Open addressing without tombstones: what follows the hole and belongs before it moves into it. */
static void close_hole(struct dht_book *book, size_t hole)
{
    size_t mask = book->slot_count - 1;
    for (size_t at = (hole + 1) & mask; book->slots[at]; at = (at + 1) & mask) {
        size_t home = home_of(book, entry_at(book, book->slots[at])->contact.public_key);
        if (((at - home) & mask) < ((at - hole) & mask))
            continue; /* its home lies behind the hole */
        book->slots[hole] = book->slots[at];
        hole = at;
    }
    book->slots[hole] = 0;
}

void dht_book_unref(struct dht_book *book, dht_handle handle)
{
    struct entry *entry = entry_at(book, handle);
    if (--entry->refs > 0)
        return;
    close_hole(book, slot_of(book, handle));
    entry->next_free = book->free;
    book->free = handle;
    book->count--;
}

size_t dht_book_count(const struct dht_book *book)
{
    return book->count;
}

size_t dht_book_bytes(const struct dht_book *book)
{
    return sizeof *book + book->slot_count * sizeof *book->slots +
           book->page_count * (sizeof *book->pages + PAGE_ENTRIES * sizeof **book->pages);
}
