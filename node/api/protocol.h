/*
 * The control protocol as one table: what the daemon answers on its local socket and what the tools ask for.
 *
 * The daemon makes its router from API_ROUTES, so a route without a handler does not compile; the client names routes,
 * never paths. docs/api.md is the prose, and tests/unit/api/test_protocol.c checks that it speaks of every route and
 * field here. Bodies and replies are JSON objects (RFC 8259) unless the table says otherwise; streams of events are
 * one JSON object a line (NDJSON), each with the field "event".
 */
#pragma once

#include <stdbool.h>

#define API_VERSION_PREFIX "/v1"
#define API_DEFAULT_SOCKET "/run/cmig/node.sock"
#define API_SOCKET_ENV "CMIG_SOCKET"

/* What a route takes as its body. */
enum api_body_mode {
    API_BODY_NONE,   /* a body is refused */
    API_BODY_JSON,   /* an object of at most LIMIT_API_BODY_BYTES; no body at all is the empty object */
    API_BODY_STREAM, /* raw bytes of any length */
    API_BODY_ANY,    /* JSON if the content type is application/json, else a stream */
};

/* X(name, method, path, body): a path segment in braces stands for one percent-encoded segment of the request. */
#define API_ROUTES(X)                                                                                                  \
    X(status, "GET", "/v1/status", API_BODY_NONE)                                                                      \
    X(log_level, "POST", "/v1/log", API_BODY_JSON)                                                                     \
    X(bandwidth_get, "GET", "/v1/bandwidth", API_BODY_NONE)                                                            \
    X(bandwidth_set, "PUT", "/v1/bandwidth", API_BODY_JSON)                                                            \
    X(scrub_status, "GET", "/v1/scrub", API_BODY_NONE)                                                                 \
    X(scrub_start, "POST", "/v1/scrub", API_BODY_JSON)                                                                 \
    X(peer_list, "GET", "/v1/peers", API_BODY_NONE)                                                                    \
    X(invitation_create, "POST", "/v1/invitations", API_BODY_JSON)                                                     \
    X(revocation_create, "POST", "/v1/revocations", API_BODY_JSON)                                                     \
    X(object_put, "POST", "/v1/objects", API_BODY_STREAM)                                                              \
    X(object_list, "GET", "/v1/objects", API_BODY_NONE)                                                                \
    X(object_get, "GET", "/v1/objects/{digest}", API_BODY_NONE)                                                        \
    X(object_remove, "DELETE", "/v1/objects/{digest}", API_BODY_NONE)                                                  \
    X(object_fetch, "POST", "/v1/objects/{digest}/fetch", API_BODY_JSON)                                               \
    X(object_pin, "PUT", "/v1/objects/{digest}/pin", API_BODY_JSON)                                                    \
    X(object_unpin, "DELETE", "/v1/objects/{digest}/pin", API_BODY_NONE)                                               \
    X(why, "GET", "/v1/why/{key}", API_BODY_NONE)                                                                      \
    X(registry_get, "GET", "/v1/registry/{key}", API_BODY_NONE)                                                        \
    X(registry_set, "POST", "/v1/registry/{key}", API_BODY_JSON)                                                       \
    X(registry_remove, "DELETE", "/v1/registry/{key}", API_BODY_NONE)                                                  \
    X(registry_watch, "GET", "/v1/registry/{key}/watch", API_BODY_NONE)                                                \
    X(image_import, "POST", "/v1/images", API_BODY_ANY)                                                                \
    X(image_list, "GET", "/v1/images", API_BODY_NONE)                                                                  \
    X(image_show, "GET", "/v1/images/{name}", API_BODY_NONE)                                                           \
    X(image_remove, "DELETE", "/v1/images/{name}", API_BODY_NONE)                                                      \
    X(image_export, "GET", "/v1/images/{name}/export", API_BODY_NONE)                                                  \
    X(container_run, "POST", "/v1/containers", API_BODY_JSON)                                                          \
    X(container_list, "GET", "/v1/containers", API_BODY_NONE)                                                          \
    X(container_get, "GET", "/v1/containers/{name}", API_BODY_NONE)                                                    \
    X(container_remove, "DELETE", "/v1/containers/{name}", API_BODY_NONE)                                              \
    X(container_logs, "GET", "/v1/containers/{name}/logs", API_BODY_NONE)                                              \
    X(container_stop, "POST", "/v1/containers/{name}/stop", API_BODY_JSON)                                             \
    X(container_migrate, "POST", "/v1/containers/{name}/migrate", API_BODY_JSON)                                       \
    X(volume_list, "GET", "/v1/volumes", API_BODY_NONE)

enum api_route_id {
#define X(name, method, path, body) API_ROUTE_##name,
    API_ROUTES(X)
#undef X
        API_ROUTE_COUNT
};

struct api_route_spec {
    const char *method;
    const char *path;
    enum api_body_mode body;
};

extern const struct api_route_spec api_route_specs[API_ROUTE_COUNT];

/* The field names of each object that goes over the socket, in the order in which they are shown. Fields in brackets
 * may be missing or null. */
#define API_FIELDS_ERROR "code message remedy"
#define API_FIELDS_STATUS                                                                                              \
    "node name cluster version uptime_s listen address peers dht registry store containers runtime"
#define API_FIELDS_STATUS_DHT "contacts records published watches watchers sent received place"
#define API_FIELDS_STATUS_REGISTRY "resp clients sets members unsaid"
#define API_FIELDS_STATUS_STORE "objects bytes quota_bytes disk_free_bytes"
#define API_FIELDS_STATUS_RUNTIME "runc criu"
#define API_FIELDS_BANDWIDTH                                                                                           \
    "up down peer-up peer-down freeze-up freeze-down volume-up volume-down layer-up layer-down prefetch-up "           \
    "prefetch-down"
#define API_FIELDS_SCRUB                                                                                               \
    "event running passes last_finished last_rotten done_bytes total_bytes rotten broken repaired repairing"
#define API_FIELDS_PEER "node name address direction state since_s rtt_ms goodput_bytes_per_s sent_bytes received_bytes"
#define API_FIELDS_INVITATION "invitation uses expires_s"
#define API_FIELDS_OBJECT "digest size_bytes kind chunks pinned created"
#define API_FIELDS_OBJECT_PUT "digest size_bytes chunks"
#define API_FIELDS_FETCH_PROGRESS "event done_bytes total_bytes rate peers"
#define API_FIELDS_FETCH_RESULT                                                                                        \
    "event digest size_bytes bytes_by_peer local_bytes wire_bytes duplicate_bytes delta_bytes delta_wire_bytes "       \
    "duration_ms"
#define API_FIELDS_WHY "key policy candidates"
#define API_FIELDS_CANDIDATE                                                                                           \
    "rank node name score epoch counter claimed_cost expected_rtt_ms measured cost value chosen reason"
#define API_FIELDS_REGISTRY "key kind members"
#define API_FIELDS_MEMBER "member score epoch counter node name address size_bytes digest"
#define API_FIELDS_WRITTEN "key member holders"
#define API_FIELDS_CHANGE "event member score epoch counter node name size_bytes digest removed"
#define API_FIELDS_IMAGE "name digest size_bytes layers created"
#define API_FIELDS_CONTAINER "id name image state pid created user volumes labels epoch exit_code"
#define API_FIELDS_CONTAINER_SPEC "name image args env volumes labels user as workdir"
#define API_FIELDS_MIGRATE_PHASE "event phase done_bytes total_bytes rate"
#define API_FIELDS_MIGRATE_REPORT                                                                                      \
    "event migration container from to state total_ms downtime_ms phases bytes bytes_by_peer local_bytes attempts"
#define API_FIELDS_VOLUME "guid path size_bytes snapshots in_use_by"

/* The query of an upload whose bytes the daemon reads itself: it answers with events, API_EVENT_SEND first. */
#define API_FROM_DESCRIPTOR "descriptor"

/* Values of the field "event" in streams of events. */
#define API_EVENT_SEND "send" /* the client's turn to hand over the open file */
#define API_EVENT_PROGRESS "progress"
#define API_EVENT_RESULT "result"
#define API_EVENT_PHASE "phase"
#define API_EVENT_REPORT "report"
#define API_EVENT_CHANGE "change"
#define API_EVENT_CLEARED "cleared"
#define API_EVENT_ERROR "error" /* with the fields of an error beside it; always the last line */

/* The path of a route with `name` percent-encoded in place of its braces (NULL for routes without), and "?query" if
 * query is not NULL (encoded by the caller: api_path_encode). Allocated; NULL when out of memory. */
char *api_route_path(enum api_route_id route, const char *name, const char *query);

/* Percent-encode all but RFC 3986's unreserved characters. Allocated; NULL when out of memory. */
char *api_path_encode(const char *text);
