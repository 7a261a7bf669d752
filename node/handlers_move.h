/*
 * Migrations that one node asks of another: the phases as they pass, and the calls about them:
 *
 *   move.start  {"id", "container", "to"}  -> {}           begin, unless this id was asked for before
 *   move.wait   {"id", "seen"}             -> {"phases": [{"number", "phase", "done_bytes", "total_bytes", "rate"}],
 *                                              "done"[, "report"][, "error": {"code", "message"}]}
 *   move.cancel {"id"}                     -> {}
 *
 * The id is a GUID of the asker's choice, so that an answer that was lost can be asked for again.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "node/base/err.h"
#include "node/migrate/migrate.h"

struct node;

#define MOVE_PHASES_MAX 16
#define MOVE_PHASE_NAME_SIZE 16

struct move_phase {
    uint64_t number; /* of the event: 1, 2, ... */
    char name[MOVE_PHASE_NAME_SIZE];
    uint64_t done_bytes, total_bytes, rate;
};

/* Each phase once, in order, with its newest numbers. Zero-initialise. */
struct move_log {
    struct move_phase phases[MOVE_PHASES_MAX];
    size_t count;
    uint64_t last; /* number of the newest event */
};

/* True if the phase is another than before. */
bool move_log_add(struct move_log *log, const char *phase, uint64_t done_bytes, uint64_t total_bytes, uint64_t rate);
/* The newest; there is one. */
const struct move_phase *move_log_last(const struct move_log *log);

/* {"event": event, "phase", ...}, or with {"number": ...} in place of the event if that is NULL. */
json_t *move_phase_to_json(const struct move_phase *phase, const char *event);
/* From a peer. */
bool move_phase_from_json(const json_t *json, struct move_phase *ret_phase);

/* The migrations that others have asked of this node; kept for some minutes after their end. */
struct moves_asked;
void moves_asked_free(struct moves_asked *asked);

/* A call of another member whose method begins with "move.". */
void handlers_move_request(struct node *node, const char *method, const json_t *body,
                           const struct migrate_answer *answer);
