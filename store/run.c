#include "store/run.h"

#include <stdlib.h>
#include <string.h>

#include "store/packs.h"

void store_run_release(struct store_run *run)
{
    free(run->copies);
    run->copies = NULL;
}

bool store_run_has(const struct store_run *run, const struct id *id)
{
    for (size_t i = 0; i < run->count; i++)
        if (id_equal(&run->records[i].id, id))
            return true;
    return false;
}

bool store_run_is_full(const struct store_run *run, size_t raw_bytes)
{
    return run->count == STORE_RUN_RECORDS || run->raw_bytes + raw_bytes > STORE_RUN_BYTES;
}

int store_run_add(struct store_run *run, const struct store_record *record, const void *body, bool copy,
                  struct err *err)
{
    if (copy && !run->copies && !(run->copies = malloc(STORE_RUN_BYTES)))
        return err_set(err, ERR_NOMEM, "no memory for chunks that are written together");
    if (copy) {
        body = memcpy(run->copies + run->copied_bytes, body, record->stored_bytes);
        run->copied_bytes += record->stored_bytes;
    }
    run->bodies[run->count] = body;
    run->records[run->count++] = *record;
    run->raw_bytes += record->raw_bytes;
    return 0;
}

static void clear(struct store_run *run)
{
    run->count = run->raw_bytes = run->copied_bytes = 0;
}

int store_run_note(struct store_run *run, struct store_batch *batch, const struct store_place *places,
                   struct store_pack *pack, struct err *err)
{
    int status = 0;
    for (size_t i = 0; i < run->count; i++) {
        const struct store_record *record = &run->records[i];
        if (status == 0) {
            store_pack_ref(pack); /* each record has its own, and its own end */
            status = store_batch_note(batch, record->type, &record->id, &places[i], pack, err);
        } else {
            store_packs_settle_record(batch->store, pack, &places[i], false);
        }
    }
    store_pack_unref(pack);
    clear(run);
    return status;
}

int store_run_write(struct store_run *run, struct store_batch *batch, struct err *err)
{
    struct store_place places[STORE_RUN_RECORDS];
    struct store_pack *pack;
    if (run->count == 0)
        return 0;
    int status = store_packs_append(batch->store, run->records, run->bodies, run->count, places, &pack, err);
    if (status == 0)
        return store_run_note(run, batch, places, pack, err);
    clear(run);
    return status;
}
