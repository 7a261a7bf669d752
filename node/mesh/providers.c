#include "node/mesh/providers.h"

#include <string.h>

#include "node/base/id.h"

/* ---- names ---- */

/* Each takes the name behind the prefix; false: it is none of its kind. */
typedef bool (*key_of)(const char *name, struct id *ret_key);

static bool object_key(const char *name, struct id *ret_key)
{
    struct id digest;
    if (!digest_parse(name, &digest))
        return false;
    *ret_key = dht_key(DHT_OBJECT, digest.b, ID_BYTES);
    return true;
}

static bool volume_key(const char *name, struct id *ret_key)
{
    struct guid guid;
    if (!guid_parse(name, &guid))
        return false;
    *ret_key = dht_key(DHT_VOLUME, guid.b, GUID_BYTES);
    return true;
}

static bool service_key(const char *name, struct id *ret_key)
{
    char both[2 * NAME_MAX_BYTES + 2];
    const char *space = strchr(name, ' ');
    size_t len = strlen(name);
    if (!space || len >= sizeof both)
        return false;
    memcpy(both, name, len + 1);
    both[space - name] = '\0';
    if (!image_name_is_valid(both) || !name_is_valid(space + 1))
        return false;
    *ret_key = dht_key(DHT_SERVICE, both, len);
    return true;
}

static bool app_key(const char *name, struct id *ret_key)
{
    *ret_key = dht_key(DHT_APP, name, strlen(name));
    return image_name_is_valid(name);
}

static bool image_key(const char *name, struct id *ret_key)
{
    *ret_key = dht_key(DHT_IMAGE, name, strlen(name));
    return image_name_is_valid(name);
}

static bool route_key(const char *name, struct id *ret_key)
{
    *ret_key = dht_key(DHT_ROUTE, name, strlen(name));
    return image_name_is_valid(name);
}

static const struct {
    const char *prefix;
    enum dht_kind kind;
    key_of key_of;
} kinds[] = {
    {"cmig:object:", DHT_OBJECT, object_key},    {"cmig:volume:", DHT_VOLUME, volume_key},
    {"cmig:service:", DHT_SERVICE, service_key}, {"cmig:app:", DHT_APP, app_key},
    {"cmig:image:", DHT_IMAGE, image_key},       {"cmig:route:", DHT_ROUTE, route_key},
};

/* What a name without a prefix is tried as, in this order. */
static const struct {
    enum dht_kind kind;
    key_of key_of;
} bare[] = {{DHT_OBJECT, object_key}, {DHT_VOLUME, volume_key}, {DHT_SERVICE, service_key}, {DHT_APP, app_key}};

bool providers_is_key(const char *text)
{
    return strncmp(text, "cmig:", 5) == 0;
}

static bool parse_prefixed(const char *text, struct provider_key *ret_key)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t len = strlen(kinds[i].prefix);
        ret_key->kind = kinds[i].kind;
        if (strncmp(text, kinds[i].prefix, len) == 0)
            return kinds[i].key_of(text + len, &ret_key->key);
    }
    return false;
}

static bool parse_bare(const char *text, struct provider_key *ret_key)
{
    bool is_digest = strncmp(text, "sha256:", 7) == 0; /* or was meant to be one */
    for (size_t i = 0; i < (is_digest ? 1 : sizeof bare / sizeof *bare); i++) {
        ret_key->kind = bare[i].kind;
        if (bare[i].key_of(text, &ret_key->key))
            return true;
    }
    return false;
}

int providers_parse(const char *text, struct provider_key *ret_key, struct err *err)
{
    if (providers_is_key(text) ? parse_prefixed(text, ret_key) : parse_bare(text, ret_key))
        return 0;
    return err_set(
        err, ERR_INVALID,
        "'%.80s' names nothing that nodes provide: that is a digest, the GUID of a volume, an image tag, 'TAG "
        "USER' for a service, or cmig:KIND:NAME with the kind object, volume, service, app, image or route",
        text);
}

/* ---- ranking ---- */

static struct policy_candidate candidate_of(const struct content *content, const struct dht_place *here,
                                            const struct dht_found *found, size_t index)
{
    struct policy_candidate candidate = {.node = found->record.member,
                                         .score = found->record.score,
                                         .version = found->record.version,
                                         .rtt_s = -1,
                                         .distance_s = -1,
                                         .index = index};
    struct exchange_cost cost;
    uint32_t tenths = dht_place_distance(here, &found->record.place);
    if (tenths != UINT32_MAX)
        candidate.distance_s = tenths / 10000.0;
    if (content_peer_cost(content, &candidate.node, &cost)) {
        candidate.rtt_s = cost.rtt_ms / 1000.0;
        candidate.goodput_bytes_per_s = (double)cost.goodput_bytes_per_s;
        candidate.received_bytes = cost.received_bytes;
        candidate.failures = cost.failures;
        candidate.load = cost.load / 255.0;
        candidate.price = cost.price;
    }
    return candidate;
}

size_t providers_rank(const struct content *content, struct mesh *mesh, const struct policy *policy,
                      const struct dht_found *found, size_t count, struct policy_candidate *ret_candidates)
{
    double error;
    struct dht_place here = dht_place(mesh_dht(mesh), &error);
    size_t others = 0;
    for (size_t i = 0; i < count; i++)
        if (!id_equal(&found[i].record.member, mesh_self(mesh)))
            ret_candidates[others++] = candidate_of(content, &here, &found[i], i);
    policy_rank(policy, ret_candidates, others);
    return others;
}
