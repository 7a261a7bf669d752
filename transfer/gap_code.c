#include "transfer/gap_code.h"

#include <string.h>

#include "node/base/limits.h"
#include "node/base/scope.h"
#include "transfer/rsync.h"

/* librsync's commands for a gap, uncompressed: at worst a copy (9 bytes) and a literal (2) for every byte of it would
 * be more, but then it comes plain. */
#define COMMANDS_MAX_BYTES (2 * LIMIT_GAP_BYTES)

size_t transfer_gap_bound(size_t gap_bytes)
{
    return store_compress_bound(gap_bytes);
}

uint32_t transfer_gap_chunk_at(const struct store_recipe *recipe, uint64_t offset)
{
    uint32_t low = 0;
    uint32_t high = recipe->root.chunk_count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (recipe->offsets[middle] <= offset)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Room for one chunk as stored and one as it is. */
struct chunk_room {
    uint8_t stored[LIMIT_CHUNK_BYTES];
    uint8_t raw[LIMIT_CHUNK_BYTES];
};

static int read_chunk(struct store *store, const struct store_chunk *chunk, struct chunk_room *room, struct err *err)
{
    struct store_piece piece;
    int status = store_piece_read(store, STORE_PIECE_CHUNK, &chunk->id, room->stored, sizeof room->stored, &piece, err);
    if (status < 0)
        return status;
    if (status == 0 || piece.raw_bytes != chunk->length)
        return err_set(err, ERR_NOTFOUND, "a chunk of a basis is not here");
    return store_decode(piece.encoding, room->stored, piece.stored_bytes, room->raw, piece.raw_bytes, err);
}

int transfer_gap_read(struct store *store, const struct store_recipe *recipe, uint64_t offset, size_t len_bytes,
                      uint8_t *ret_data, struct err *err)
{
    OWNED(owned_free) struct chunk_room *room = malloc(sizeof *room);
    if (!room)
        return err_set(err, ERR_NOMEM, "no memory for a chunk");
    size_t done = 0;
    for (uint32_t i = transfer_gap_chunk_at(recipe, offset); done < len_bytes; i++) {
        int status = read_chunk(store, &recipe->chunks[i], room, err);
        if (status < 0)
            return status;
        size_t skip = (size_t)(offset + done - recipe->offsets[i]);
        size_t part = recipe->chunks[i].length - skip;
        if (part > len_bytes - done)
            part = len_bytes - done;
        memcpy(ret_data + done, room->raw + skip, part);
        done += part;
    }
    return 0;
}

/* 1 if a delta by signature was made, 0 if it is not worth it. */
static int encode_rsync(struct store_patch *patch, const struct gap_against *against, const uint8_t *data,
                        size_t len_bytes, uint8_t *ret_frame, size_t cap_bytes, size_t *ret_len, struct err *err)
{
    OWNED(buf_release) struct buf commands = BUF(COMMANDS_MAX_BYTES);
    int status = transfer_rsync_delta(against->signature, against->signature_bytes, data, len_bytes, &commands, NULL);
    if (status < 0)
        return status == ERR_NOMEM ? err_set(err, status, "no memory for a delta") : 0;
    status = store_patch_make(patch, NULL, 0, commands.data, commands.len, ret_frame, cap_bytes, ret_len, err);
    return status == 0 ? 1 : status == ERR_LIMIT ? 0 : status;
}

int transfer_gap_encode(struct store_patch *patch, const struct gap_against *against, const uint8_t *data,
                        size_t len_bytes, uint8_t *ret_frame, size_t cap_bytes, size_t *ret_len,
                        enum message_codec *ret_codec, struct err *err)
{
    int status = 0;
    if (against->signature)
        status = encode_rsync(patch, against, data, len_bytes, ret_frame, cap_bytes, ret_len, err);
    if (status != 0) {
        *ret_codec = MESSAGE_CODEC_RSYNC;
        return status < 0 ? status : 0;
    }
    *ret_codec = against->range ? MESSAGE_CODEC_PREFIX : MESSAGE_CODEC_PLAIN;
    return store_patch_make(patch, against->range, against->range ? against->range_bytes : 0, data, len_bytes,
                            ret_frame, cap_bytes, ret_len, err);
}

static int decode_rsync(const uint8_t *range, size_t range_bytes, const uint8_t *frame, size_t frame_bytes,
                        uint8_t *ret_data, size_t len_bytes, struct err *err)
{
    OWNED(owned_free) uint8_t *commands = malloc(COMMANDS_MAX_BYTES);
    if (!commands)
        return err_set(err, ERR_NOMEM, "no memory for a delta");
    size_t len = 0;
    int status = store_patch_undo(NULL, 0, frame, frame_bytes, commands, COMMANDS_MAX_BYTES, &len, err);
    return status < 0 ? status : transfer_rsync_patch(range, range_bytes, commands, len, ret_data, len_bytes, err);
}

int transfer_gap_decode(enum message_codec codec, const uint8_t *range, size_t range_bytes, const uint8_t *frame,
                        size_t frame_bytes, uint8_t *ret_data, size_t len_bytes, struct err *err)
{
    if (codec == MESSAGE_CODEC_RSYNC)
        return decode_rsync(range, range_bytes, frame, frame_bytes, ret_data, len_bytes, err);
    bool prefixed = codec == MESSAGE_CODEC_PREFIX;
    size_t len = 0;
    int status = store_patch_undo(prefixed ? range : NULL, prefixed ? range_bytes : 0, frame, frame_bytes, ret_data,
                                  len_bytes, &len, err);
    if (status == 0 && len != len_bytes)
        status = err_set(err, ERR_CORRUPT, "a delta gives %zu bytes, not %zu", len, len_bytes);
    return status;
}
