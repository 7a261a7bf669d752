#include "node/image/trial.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "node/base/crypto.h"
#include "node/base/file.h"
#include "node/image/recompress.h"
#include "store/compress_whole.h"

#define HEAD_PLAIN_BYTES (4u << 20) /* of the tar: enough for the blob's head, unless it is nearly empty */
#define HEAD_BLOB_BYTES (256u << 10)
#define STEP_BYTES (64u << 10) /* compressed between two looks at the clock */
#define CANDIDATES 40

OWNED_DEFINE(owned_reader, struct store_reader, store_reader_close)
OWNED_DEFINE(owned_sha256, struct crypto_sha256, crypto_sha256_free)

/* One attempt: what comes out of the encoder is compared with the blob as far as that goes. */
struct attempt {
    const struct image_trial *trial; /* borrowed */
    uint64_t deadline_ms;            /* by cpu_ms */
    uint64_t at;                     /* bytes that were as in the blob */
    bool differs;                    /* the rest was not */
    uint8_t *head;                   /* owned; the blob's first bytes */
    size_t head_len;
    uint8_t *piece;             /* owned; STEP_BYTES of the rest */
    struct crypto_sha256 *hash; /* owned */
    uint8_t *plain;             /* owned; the tar's first bytes */
    size_t plain_len;
    size_t plain_done; /* of those, given to the encoder */
    uint8_t *step;     /* owned; STEP_BYTES of all of it */
    uint64_t whole_ms; /* that the whole will take, by the time that the head took */
    struct image_packing candidates[CANDIDATES];
    size_t candidate_count;
};

static void attempt_release(struct attempt *attempt)
{
    free(attempt->head);
    free(attempt->piece);
    free(attempt->plain);
    free(attempt->step);
    crypto_sha256_free(attempt->hash);
}

static int load_heads(struct attempt *attempt, struct err *err)
{
    const struct image_trial *trial = attempt->trial;
    uint64_t blob_bytes = trial->blob.size_bytes, plain_bytes = trial->layer.size_bytes;
    attempt->head_len = blob_bytes < HEAD_BLOB_BYTES ? (size_t)blob_bytes : HEAD_BLOB_BYTES;
    attempt->plain_len = plain_bytes < HEAD_PLAIN_BYTES ? (size_t)plain_bytes : HEAD_PLAIN_BYTES;
    attempt->head = malloc(HEAD_BLOB_BYTES);
    attempt->piece = malloc(STEP_BYTES);
    attempt->plain = malloc(HEAD_PLAIN_BYTES);
    attempt->step = malloc(STEP_BYTES);
    if (!attempt->head || !attempt->piece || !attempt->plain || !attempt->step)
        return err_set(err, ERR_NOMEM, "no memory to look at a layer");
    int status = crypto_sha256_new(&attempt->hash, err);
    if (status == 0)
        status = file_pread_all(trial->blob_fd, attempt->head, attempt->head_len, 0, "the layer's blob", err);
    if (status == 0)
        status = store_object_read(trial->import->store, &trial->layer.diff_id, 0, attempt->plain, attempt->plain_len,
                                   &attempt->plain_len, err);
    return status;
}

/* Of this thread: what else the machine does is no reason to keep a blob. The clock stands while zstd's own thread
 * works on jobs, whose time is foretold by that of the head, which has none. */
static uint64_t cpu_ms(void)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- candidates, the likely ones first ---- */

static void add(struct attempt *attempt, struct image_packing packing)
{
    attempt->candidates[attempt->candidate_count++] = packing;
}

static void list_gzip(struct attempt *attempt, struct image_packing packing)
{
    static const uint8_t levels[] = {6, 9, 1, 5, 4, 7, 8, 3, 2};
    static const struct {
        uint8_t memory;
        bool blocks;
    } ways[] = {{8, false}, {8, true}, {9, false}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        for (size_t j = 0; j < sizeof levels; j++) {
            packing.memory = ways[i].memory;
            packing.blocks = ways[i].blocks;
            packing.level = levels[j];
            add(attempt, packing);
        }
    }
}

static void list_zstd(struct attempt *attempt, struct image_packing packing)
{
    static const uint8_t levels[] = {3, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19};
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        packing.level = levels[i];
        add(attempt, packing);
    }
}

static void list_candidates(struct attempt *attempt)
{
    struct image_packing packing;
    image_packing_look(attempt->head, attempt->head_len, &packing);
    if (packing.codec == IMAGE_CODEC_GZIP)
        list_gzip(attempt, packing);
    else if (packing.codec == IMAGE_CODEC_ZSTD)
        list_zstd(attempt, packing);
}

/* ---- comparing ---- */

/* Ends the attempt by an error that nobody sees. */
static int stop(struct err *err)
{
    return err_set(err, ERR_CONFLICT, "enough was seen");
}

static int compare_head(void *ctx, const void *data, size_t len_bytes, struct err *err)
{
    struct attempt *attempt = ctx;
    size_t left = attempt->head_len - (size_t)attempt->at, len = len_bytes < left ? len_bytes : left;
    attempt->differs = memcmp(attempt->head + attempt->at, data, len) != 0;
    attempt->at += len;
    return attempt->differs || attempt->at == attempt->head_len ? stop(err) : 0;
}

static int compare_piece(struct attempt *attempt, const uint8_t *data, size_t len, struct err *err)
{
    int status = file_pread_all(attempt->trial->blob_fd, attempt->piece, len, attempt->at, "the layer's blob", err);
    if (status < 0)
        return status;
    attempt->differs = memcmp(attempt->piece, data, len) != 0;
    attempt->at += len;
    return attempt->differs ? stop(err) : 0;
}

static int compare_all(void *ctx, const void *data, size_t len_bytes, struct err *err)
{
    struct attempt *attempt = ctx;
    const uint8_t *bytes = data;
    int status = 0;
    attempt->differs = len_bytes > attempt->trial->blob.size_bytes - attempt->at;
    if (attempt->differs)
        return stop(err);
    crypto_sha256_add(attempt->hash, data, len_bytes);
    for (size_t done = 0; status == 0 && done < len_bytes;) {
        size_t len = len_bytes - done < STEP_BYTES ? len_bytes - done : STEP_BYTES;
        status = compare_piece(attempt, bytes + done, len, err);
        done += len;
    }
    return status;
}

/* ---- trying ---- */

static int check_time(struct attempt *attempt, struct err *err)
{
    int status = image_source_check(attempt->trial->import->options, err);
    if (status == 0 && cpu_ms() > attempt->deadline_ms)
        status = err_set(err, ERR_TIMEOUT, "the trials took too long");
    return status;
}

static int press_head(struct attempt *attempt, struct image_recompress *press, struct err *err)
{
    int status = 0;
    attempt->plain_done = 0;
    while (status == 0 && attempt->plain_done < attempt->plain_len) {
        size_t left = attempt->plain_len - attempt->plain_done, len = left < STEP_BYTES ? left : STEP_BYTES;
        status = check_time(attempt, err);
        if (status == 0)
            status = image_recompress_write(press, attempt->plain + attempt->plain_done, len, err);
        attempt->plain_done += len;
    }
    return status;
}

/* 1 if it fits so far. */
static int try_head(struct attempt *attempt, const struct image_packing *packing, struct err *err)
{
    OWNED(owned_recompress) struct image_recompress *press = NULL;
    uint64_t plain_bytes = attempt->trial->layer.size_bytes, began_ms = cpu_ms();
    attempt->at = 0;
    attempt->differs = false;
    int status = image_recompress_new(packing, plain_bytes, compare_head, attempt, &press, err);
    if (status == 0)
        status = press_head(attempt, press, err);
    if (status < 0 && status != ERR_CONFLICT)
        return status;
    attempt->whole_ms = attempt->plain_done > 0 ? (cpu_ms() - began_ms) * plain_bytes / attempt->plain_done : 0;
    return !attempt->differs;
}

static int press_all(struct attempt *attempt, struct store_reader *reader, struct image_recompress *press,
                     struct err *err)
{
    size_t len = 0;
    int status = 0;
    do {
        status = check_time(attempt, err);
        if (status == 0)
            status = store_reader_read(reader, attempt->plain, STEP_BYTES, &len, err);
        if (status == 0)
            status =
                len > 0 ? image_recompress_write(press, attempt->plain, len, err) : image_recompress_finish(press, err);
    } while (status == 0 && len > 0);
    return status;
}

/* 1 if it gives the blob. */
static int try_all(struct attempt *attempt, const struct image_packing *packing, struct err *err)
{
    const struct image_trial *trial = attempt->trial;
    OWNED(owned_recompress) struct image_recompress *press = NULL;
    OWNED(owned_reader) struct store_reader *reader = NULL;
    struct id digest;
    attempt->at = 0;
    attempt->differs = false;
    crypto_sha256_take(attempt->hash, &digest); /* begin anew */
    int status = image_recompress_new(packing, trial->layer.size_bytes, compare_all, attempt, &press, err);
    if (status == 0)
        status = store_reader_open(trial->import->store, &trial->layer.diff_id, &reader, err);
    if (status == 0)
        status = press_all(attempt, reader, press, err);
    if (status < 0)
        return status == ERR_CONFLICT ? 0 : status;
    crypto_sha256_take(attempt->hash, &digest);
    return attempt->at == trial->blob.size_bytes && id_equal(&digest, &trial->blob.digest);
}

/* One call of an encoder may last long: what cannot end in time is not begun. Of zstd's jobs a head does not tell,
 * since they begin to differ from the rest only after some MiB. */
static int try_candidate(struct attempt *attempt, struct image_packing *packing, struct err *err)
{
    int fits = try_head(attempt, packing, err);
    if (fits <= 0)
        return fits;
    if (cpu_ms() + attempt->whole_ms > attempt->deadline_ms)
        return err_set(err, ERR_TIMEOUT, "the trial would take too long");
    packing->jobs = packing->codec == IMAGE_CODEC_ZSTD;
    fits = try_all(attempt, packing, err);
    if (fits == 0 && packing->jobs) {
        packing->jobs = false;
        fits = try_all(attempt, packing, err);
    }
    return fits;
}

int image_trial_run(const struct image_trial *trial, struct image_packing *ret_packing, struct err *err)
{
    OWNED(attempt_release) struct attempt attempt = {.trial = trial};
    attempt.deadline_ms = cpu_ms() + IMAGE_TRIAL_MS + trial->layer.size_bytes / IMAGE_TRIAL_BYTES_PER_MS;
    int status = load_heads(&attempt, err);
    if (status < 0)
        return status;
    list_candidates(&attempt);
    for (size_t i = 0; status == 0 && i < attempt.candidate_count; i++) {
        status = try_candidate(&attempt, &attempt.candidates[i], err);
        if (status > 0)
            *ret_packing = attempt.candidates[i];
    }
    if (status == ERR_TIMEOUT || status == ERR_UNSUPPORTED)
        status = 0;
    if (status >= 0 && err)
        err_clear(err);
    return status;
}
