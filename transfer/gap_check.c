/* Deltas become chunks: put together with the range of the basis, cut as the recipe says, each checked by its id. */
#include <stdlib.h>

#include "node/base/limits.h"
#include "store/compress.h"
#include "transfer/gap.h"
#include "transfer/gap_code.h"
#include "transfer/have.h"

/* Compressed as ingest does, but not while a stopped container waits for them. */
static struct store_compress *new_press(const struct fetch *fetch)
{
    struct store_compress *press = NULL;
    if (fetch->class != EXCHANGE_FREEZE)
        store_compress_new(&press, NULL);
    return press;
}
OWNED_DEFINE(owned_press, struct store_compress, store_compress_free)

static int add_chunk(struct fetch *fetch, struct store_compress *press, uint32_t chunk, const uint8_t *data,
                     struct err *err)
{
    size_t len = fetch->recipe->recipe->chunks[chunk].length;
    size_t pressed_len = 0;
    const uint8_t *pressed = press ? store_compress_chunk(press, data, len, &pressed_len) : NULL;
    if (pressed)
        return store_assembly_add(fetch->assembly, chunk, STORE_ZSTD, pressed, pressed_len, err);
    return store_assembly_add(fetch->assembly, chunk, STORE_RAW, data, len, err);
}

static int add_chunks(struct fetch *fetch, const struct gap *gap, struct gap_arrival *delta, const uint8_t *data,
                      struct err *err)
{
    OWNED(owned_press) struct store_compress *press = new_press(fetch);
    int worst = 0;
    for (uint32_t i = 0; i < gap->count; i++) {
        int status = have_get(delta->wanted, i) ? add_chunk(fetch, press, gap->first + i, data, err) : 0;
        data += fetch->recipe->recipe->chunks[gap->first + i].length;
        if (status == 0)
            have_set(delta->good, i);
        else if (status != ERR_CORRUPT)
            return status;
        else
            worst = status;
    }
    return worst;
}

int transfer_gaps_check(struct fetch *fetch, struct arrived *arrived, struct err *err)
{
    struct gap_arrival *delta = arrived->delta;
    const struct gaps *gaps = fetch->gaps;
    const struct gap *gap = &gaps->plan.gaps[delta->gap];
    OWNED(owned_free) uint8_t *range = malloc(gap->range_bytes);
    OWNED(owned_free) uint8_t *data = malloc(gap->bytes);
    int status = range && data ? 0 : err_set(err, ERR_NOMEM, "no memory for a gap");
    if (status == 0 && delta->codec != MESSAGE_CODEC_PLAIN &&
        transfer_gap_read(fetch->exchange->config.store, gaps->bases[gap->basis]->recipe, gap->range_offset,
                          gap->range_bytes, range, NULL) < 0)
        status = ERR_CORRUPT; /* the basis is gone or has rotted; nobody's fault */
    if (status == 0)
        status = transfer_gap_decode(delta->codec, range, gap->range_bytes, arrived->data, arrived->stored_bytes, data,
                                     gap->bytes, err);
    if (status == 0)
        status = add_chunks(fetch, gap, delta, data, err);
    return status;
}

static void count(struct fetch *fetch, const struct gap_arrival *delta, uint64_t gap_bytes, uint64_t wire_bytes)
{
    fetch->deltas.gap_bytes[delta->codec] += gap_bytes;
    fetch->deltas.wire_bytes[delta->codec] += wire_bytes;
}

void transfer_gaps_settle(struct fetch *fetch, struct arrived *arrived)
{
    struct gap_arrival *delta = arrived->delta;
    const struct gap *gap = &fetch->gaps->plan.gaps[delta->gap];
    struct source *source = arrived->source;
    uint64_t good_bytes = 0;
    uint64_t wire_bytes = arrived->stored_bytes;
    for (uint32_t i = 0; i < gap->count; i++) {
        uint32_t chunk = gap->first + i;
        if (have_get(delta->wanted, i) && have_get(delta->good, i)) {
            transfer_verify_good(fetch, source, chunk, wire_bytes);
            good_bytes += fetch->recipe->recipe->chunks[chunk].length;
            wire_bytes = 0; /* counted once */
        } else if (have_get(delta->wanted, i)) {
            transfer_pick_set(fetch, chunk, CHUNK_FREE);
        }
    }
    count(fetch, delta, good_bytes, arrived->stored_bytes);
    if (arrived->status == 0)
        return;
    transfer_gaps_give_up(fetch->gaps, delta->gap);
    if (arrived->status != ERR_CORRUPT)
        return;
    source->delta_failures++;
    if (delta->codec == MESSAGE_CODEC_PLAIN)
        transfer_source_lied(source, "sent chunks that do not fit their digests");
}
