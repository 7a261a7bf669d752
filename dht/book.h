/*
 * The book of contacts: each (public key, address) once, however many tables it is in, with the id that belongs to the
 * key, so that tables hold 4-byte handles and the ids of known keys are not hashed again.
 *
 * The address is part of what an entry is: who lies about the address of another makes another entry and changes none,
 * also where the nodes of a simulator share one book. The entries of one key are found by the key alone.
 *
 * 1. An entry lives while somebody holds a reference to it; pointers to it are good for as long, and do not move.
 * 2. Only tables and the lists of lost contacts hold references, so a book has no more entries than there are places
 *    in them.
 */
#pragma once

#include "dht/dht.h"

/* 0 is no entry. */
typedef uint32_t dht_handle;

/* As dht_book_new, for a book that attackers fill. */
int dht_book_make(uint64_t seed, struct dht_book **ret_book, struct err *err);

/* A reference to the entry of this contact, made if there is none yet. 0 when there is no memory or no room. */
dht_handle dht_book_ref(struct dht_book *book, const struct dht_contact *contact);
void dht_book_unref(struct dht_book *book, dht_handle handle);

/* The contact of a handle to which there is a reference. */
const struct dht_contact *dht_book_at(const struct dht_book *book, dht_handle handle);
/* The entries of a key, one address after another: start with *cursor = 0; 0 at the end. */
dht_handle dht_book_next(const struct dht_book *book, const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES],
                         size_t *cursor);
/* The id of a key: from the book, if it is there (NULL: no book), else by hashing it. */
struct id dht_book_id_of(const struct dht_book *book, const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES]);
size_t dht_book_count(const struct dht_book *book);
size_t dht_book_bytes(const struct dht_book *book);
