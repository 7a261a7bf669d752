/* What the files of the mesh share: mesh.c (composition, neighbours), listen.c (sockets), who.c (names and
 * addresses), seeds.c (where to begin), call.c (calls with patience), admit.c (newcomers and
 * revocations). Not for other files. */
#pragma once

#include <sys/queue.h>

#include "node/base/map.h"
#include "node/mesh/mesh.h"
#include "node/mesh/overlay.h"
#include "node/mesh/records.h"
#include "node/net/timers.h"

#define MESH_MAX_ACQUAINTANCES 4096
#define MESH_MAX_SEEDS 32 /* named by the operator, and as many that were met */
#define MESH_MAX_LISTEN LINKS_MAX_LISTEN

/* A node that this one has heard of. */
struct acquaintance {
    struct id id;
    struct addr addr; /* where it listens; family 0: unknown */
    char name[NAME_MAX_BYTES + 1];
    uint64_t dial_after_ms;    /* back-off */
    unsigned failures;         /* dials, and links that did not last, in a row */
    struct locating *locating; /* owned; the DHT is asked for its address. NULL: it is not */
};

struct mesh_socket {
    struct addr addr;
    struct udp *udp; /* owned */
};

struct outcall;
TAILQ_HEAD(outcall_list, outcall);
struct finding;
TAILQ_HEAD(finding_list, finding);

struct mesh {
    struct mesh_config config;
    char name[NAME_MAX_BYTES + 1];
    struct addr address;   /* ours, for others; family 0: unknown */
    bool address_is_fixed; /* named by the operator */
    struct mesh_socket sockets[MESH_MAX_LISTEN];
    size_t socket_count;
    struct overlay *overlay;
    struct dht *dht; /* the overlay's */
    struct records *records;
    struct links *links;
    struct calls *calls;
    struct timers *timers;
    struct admission_guard *guard;
    struct map acquaintances;
    struct addr seeds[MESH_MAX_SEEDS]; /* named by the operator */
    size_t seed_count;
    struct addr met[MESH_MAX_SEEDS]; /* neighbours of now and of earlier, the last first; kept in the store */
    size_t met_count;
    unsigned seed_next;
    uint64_t seed_after_ms;
    bool keeping, met_changed; /* a job writes them; they have changed since */
    struct outcall_list outcalls;
    struct finding_list findings;
    uv_timer_t house_timer;
    unsigned open_handles;
    uint64_t ticks; /* of the house timer */
    bool closing;
};

uint64_t mesh_now(const struct mesh *mesh);

/* who.c */
struct acquaintance *mesh_meet(struct mesh *mesh, const struct id *id); /* NULL when too many are known */
struct acquaintance *mesh_know(const struct mesh *mesh, const struct id *id);
void mesh_hello(struct mesh *mesh, struct link *link);
void mesh_answer_hello(struct mesh *mesh, struct link *link, const uint8_t *data, size_t len_bytes,
                       struct call_request *request);
void mesh_learn_address(struct mesh *mesh, const struct link *link);
void mesh_publish_name(struct mesh *mesh);
void mesh_note_failure(struct mesh *mesh, struct acquaintance *known);
void mesh_forget_all(struct mesh *mesh);
/* All that mesh_find still owes. */
void mesh_end_finds(struct mesh *mesh);

/* listen.c */
int mesh_listen(struct mesh *mesh, struct err *err);
void mesh_unlisten(struct mesh *mesh);
void mesh_send_datagram(struct mesh *mesh, const struct addr *to, const uint8_t *bytes, size_t len_bytes);

/* seeds.c */
void mesh_load_seeds(struct mesh *mesh);
void mesh_keep_seed(struct mesh *mesh, const struct addr *addr);
void mesh_drop_seed(struct mesh *mesh, const struct addr *addr);
/* The next to be tried, rarer with each round; NULL if there is none, or not yet. */
const struct addr *mesh_next_seed(struct mesh *mesh);

/* call.c */
void mesh_calls_tick(struct mesh *mesh);
void mesh_calls_link_up(struct mesh *mesh, struct link *link);
/* Every call that waits ends in ERR_CANCELLED. */
void mesh_calls_close(struct mesh *mesh);

/* admit.c */
void mesh_answer_admit(struct mesh *mesh, struct link *link, const uint8_t *data, size_t len_bytes,
                       struct call_request *request);
void mesh_answer_revocation(struct mesh *mesh, struct link *link, const uint8_t *data, size_t len_bytes,
                            struct call_request *request);
void mesh_tell_revocations(struct mesh *mesh, struct link *link);
void mesh_ask_revocations(struct mesh *mesh);
/* The DHT knows nothing of what was revoked in an earlier life. */
void mesh_apply_revocations(struct mesh *mesh);
void mesh_renew(struct mesh *mesh);
