#include "tests/unit/dht/rig.h"

/* Contacts without the cost of real keys: the id is what the number says. */
static struct dht_contact numbered(unsigned number, uint16_t port)
{
    struct dht_contact contact = {.addr = {.family = 4, .port = port, .ip = {10, 0, 0, 1}}};
    memcpy(contact.public_key, &number, sizeof number);
    memcpy(contact.id.b + 4, &number, sizeof number);
    return contact;
}

static dht_handle first_of(const struct dht_book *book, const struct dht_contact *contact)
{
    size_t cursor = 0;
    return dht_book_next(book, contact->public_key, &cursor);
}

static void test_book__each_contact_once(void **state)
{
    (void)state;
    struct dht_book *book;
    struct dht_contact a = numbered(1, 1), b = numbered(2, 1);
    assert_int_equal(dht_book_new(&book, NULL), 0);
    assert_int_equal(first_of(book, &a), 0);
    dht_handle handle = dht_book_ref(book, &a);
    assert_int_not_equal(handle, 0);
    assert_int_equal(dht_book_ref(book, &a), handle);
    assert_int_not_equal(dht_book_ref(book, &b), handle);
    assert_int_equal(dht_book_count(book), 2);
    dht_book_unref(book, handle);
    assert_int_equal(first_of(book, &a), handle);
    dht_book_unref(book, handle);
    assert_int_equal(first_of(book, &a), 0);
    assert_int_equal(dht_book_count(book), 1);
    assert_int_equal(dht_book_ref(book, &a), handle); /* its place is used again */
    dht_book_free(book);
}

/* Entries of one key at several addresses: another address is another entry, and all are found by the key. */
static void test_book__addresses_are_kept_apart(void **state)
{
    (void)state;
    struct dht_book *book;
    dht_handle handles[5];
    assert_int_equal(dht_book_new(&book, NULL), 0);
    for (unsigned i = 0; i < 5; i++) {
        struct dht_contact contact = numbered(7, (uint16_t)(i + 1)), other = numbered(i, 99);
        handles[i] = dht_book_ref(book, &contact);
        dht_book_ref(book, &other);
    }
    struct dht_contact any = numbered(7, 1000);
    unsigned seen = 0, found = 0;
    dht_handle handle;
    for (size_t cursor = 0; (handle = dht_book_next(book, any.public_key, &cursor)); found++)
        for (unsigned i = 0; i < 5; i++)
            if (handle == handles[i])
                seen |= 1u << dht_book_at(book, handle)->addr.port;
    assert_int_equal(found, 5);
    assert_int_equal(seen, 0x3e);
    dht_book_free(book);
}

/* A known key is not hashed: the id is the one that the book has. */
static void test_book__ids_of_known_keys_are_not_derived(void **state)
{
    (void)state;
    struct dht_book *book;
    struct dht_contact a = numbered(1, 1);
    struct id hashed;
    crypto_id_of(a.public_key, sizeof a.public_key, &hashed);
    assert_int_equal(dht_book_new(&book, NULL), 0);
    struct id id = dht_book_id_of(book, a.public_key);
    assert_true(id_equal(&id, &hashed));
    id = dht_book_id_of(NULL, a.public_key);
    assert_true(id_equal(&id, &hashed));
    dht_book_ref(book, &a);
    id = dht_book_id_of(book, a.public_key);
    assert_true(id_equal(&id, &a.id));
    dht_book_free(book);
}

/* Thousands come and go, some of them many times: what is referred to is found, the rest is not, and no pointer moves.
 */
static void test_book__comes_and_goes(void **state)
{
    (void)state;
    enum { COUNT = 3000, STEPS = 60000 };
    static dht_handle handles[COUNT];
    static unsigned refs[COUNT];
    static const struct dht_contact *places[COUNT];
    uint64_t rng_state = RIG_SEED;
    struct rng rng = rng_seeded(&rng_state);
    struct dht_book *book;
    size_t held = 0;
    assert_int_equal(dht_book_make(rng_u64(&rng), &book, NULL), 0);
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned i = (unsigned)rng_below(&rng, COUNT);
        struct dht_contact contact = numbered(i, 1);
        if (refs[i] > 0 && rng_below(&rng, 2)) {
            assert_ptr_equal(dht_book_at(book, handles[i]), places[i]);
            dht_book_unref(book, handles[i]);
            held -= --refs[i] == 0;
        } else {
            handles[i] = dht_book_ref(book, &contact);
            places[i] = dht_book_at(book, handles[i]);
            held += refs[i]++ == 0;
        }
        assert_int_equal(dht_book_count(book), held);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        struct dht_contact contact = numbered(i, 1);
        assert_int_equal(first_of(book, &contact), refs[i] ? handles[i] : 0);
        if (refs[i])
            assert_memory_equal(dht_book_at(book, handles[i]), &contact, sizeof contact);
    }
    assert_in_range(dht_book_bytes(book), held * sizeof(struct dht_contact), COUNT * 160);
    dht_book_free(book);
}

int main(void)
{
    assert_int_equal(crypto_init(NULL), 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_book__each_contact_once),
        cmocka_unit_test(test_book__addresses_are_kept_apart),
        cmocka_unit_test(test_book__ids_of_known_keys_are_not_derived),
        cmocka_unit_test(test_book__comes_and_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
