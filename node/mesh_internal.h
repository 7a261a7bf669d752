/* What the files of the mesh share: mesh.c (composition, neighbours), mesh_who.c (names and addresses), mesh_call.c
 * (calls with patience), mesh_admit.c (newcomers and revocations). Not for other files. */
#pragma once

#include <sys/queue.h>

#include "node/base/map.h"
#include "node/mesh.h"
#include "node/net/datagram.h"
#include "node/net/timers.h"
#include "node/records.h"

#define MESH_MAX_ACQUAINTANCES 4096
#define MESH_MAX_SEEDS 32

/* A node that this one has heard of. */
struct acquaintance {
    struct id id;
    struct addr addr; /* where it listens; family 0: unknown */
    char name[NAME_MAX_BYTES + 1];
    uint64_t dial_after_ms; /* back-off */
    unsigned failures;
    bool asked; /* the DHT, for its address */
};

struct outcall;
TAILQ_HEAD(outcall_list, outcall);
struct finding;

struct mesh {
    struct mesh_config config;
    char name[NAME_MAX_BYTES + 1];
    struct addr address; /* ours, for others; family 0: unknown */
    struct udp *udp;
    struct datagram *datagram;
    struct dht *dht;
    struct records *records;
    struct links *links;
    struct calls *calls;
    struct timers *timers;
    struct admission_guard *guard;
    struct map acquaintances;
    struct addr seeds[MESH_MAX_SEEDS];
    size_t seed_count;
    unsigned seed_next;
    struct outcall_list outcalls;
    uv_timer_t dht_timer, house_timer;
    unsigned open_handles;
    uint64_t ticks; /* of the house timer */
    struct crypto_sign_key dht_key;
    bool closing;
};

uint64_t mesh_now(const struct mesh *mesh);

/* mesh_who.c */
struct acquaintance *mesh_meet(struct mesh *mesh, const struct id *id); /* NULL when too many are known */
struct acquaintance *mesh_know(const struct mesh *mesh, const struct id *id);
void mesh_hello(struct mesh *mesh, struct link *link);
void mesh_answer_hello(struct mesh *mesh, struct link *link, const uint8_t *data, size_t len_bytes,
                       struct call_request *request);
void mesh_learn_address(struct mesh *mesh, const struct link *link);
void mesh_load_seeds(struct mesh *mesh);
void mesh_publish_name(struct mesh *mesh);

/* mesh_call.c */
void mesh_calls_tick(struct mesh *mesh);
void mesh_calls_link_up(struct mesh *mesh, struct link *link);
void mesh_calls_free(struct mesh *mesh);

/* mesh_admit.c */
void mesh_answer_admit(struct mesh *mesh, struct link *link, const uint8_t *data, size_t len_bytes,
                       struct call_request *request);
void mesh_answer_revocation(struct mesh *mesh, struct link *link, const uint8_t *data, size_t len_bytes,
                            struct call_request *request);
void mesh_tell_revocations(struct mesh *mesh, struct link *link);
void mesh_ask_revocations(struct mesh *mesh);
void mesh_renew(struct mesh *mesh);
