/*
 * Rows of the store's index as a damaged file may have them. The first byte chooses the table, the second is the length
 * of the key. What decodes stays within the limits that buffers are sized by; the scrub's row encodes to the same
 * bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "store/pack.h"
#include "store/rows.h"
#include "store/scrub.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool condition)
{
    if (!condition)
        abort();
}

static void try_piece(struct store_span key, struct store_span value)
{
    enum store_piece_type type;
    struct id id;
    struct store_piece_row row;
    if (!store_rows_piece_key(key, &type, &id) || !store_rows_piece_decode(type, value, &row))
        return;
    expect(row.place.raw_bytes <= store_pack_max_bytes(type) && row.place.stored_bytes <= store_pack_max_bytes(type));
    expect(row.place.encoding == STORE_RAW || row.place.encoding == STORE_ZSTD);
}

static void try_rot(struct store_span key, struct store_span value)
{
    struct store_rot rot;
    if (store_rows_rot_decode(key, value, &rot))
        expect(store_rot_cause_text(rot.cause) && rot.type >= STORE_PIECE_CHUNK && rot.type <= STORE_PIECE_ROOT);
}

static void try_broken(struct store_span key, struct store_span value)
{
    struct store_broken broken;
    if (store_rows_broken_decode(key, value, &broken))
        expect(store_kind_is_valid(broken.kind));
}

static void try_scrub(struct store_span value)
{
    struct store_scrub_mark mark;
    uint8_t row[STORE_SCRUB_ROW_BYTES];
    if (!store_scrub_decode(value.data, value.len, &mark))
        return;
    expect(mark.type <= STORE_PIECE_ROOT && mark.now.permille <= 1000);
    store_scrub_encode(&mark, row);
    expect(value.len == sizeof row && memcmp(row, value.data, sizeof row) == 0);
}

static void try_unread(struct store_span key, struct store_span value)
{
    struct store_unread unread;
    if (store_rows_unread_decode(key, value, &unread))
        expect(unread.place.pack != 0 && unread.place.stored_bytes <= store_pack_max_bytes(unread.type));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || data[1] > size - 2)
        return 0;
    struct store_span key = {data + 2, data[1]};
    struct store_span value = {data + 2 + data[1], size - 2 - data[1]};
    struct store_object_info info;
    struct store_partial_info partial;
    struct store_pack_row pack;
    struct store_free_row range;
    switch (data[0]) {
    case STORE_DB_PIECE:
        try_piece(key, value);
        break;
    case STORE_DB_UNREAD:
        try_unread(key, value);
        break;
    case STORE_DB_OBJECT:
        expect(!store_rows_object_decode(key, value, &info) || store_kind_is_valid(info.kind));
        break;
    case STORE_DB_PARTIAL:
        expect(!store_rows_partial_decode(key, value, &partial) || store_kind_is_valid(partial.kind));
        break;
    case STORE_DB_PACK:
        store_rows_pack_decode(key, value, &pack);
        break;
    case STORE_DB_FREE:
        store_rows_free_decode(key, value, &range);
        break;
    case STORE_DB_ROT:
        try_rot(key, value);
        break;
    case STORE_DB_BROKEN:
        try_broken(key, value);
        break;
    default:
        try_scrub(value);
    }
    return 0;
}
