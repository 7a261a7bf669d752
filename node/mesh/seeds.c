/* Where a node begins that knows nobody: what the operator named, and neighbours of earlier, kept in one row. */
#include <stdlib.h>
#include <string.h>

#include "node/base/log.h"
#include "node/base/scope.h"
#include "node/mesh/internal.h"

#define SEED_PAUSE_MS 1900 /* after the first round twice as long, then four times, up to 16 times */
static const char table[] = "mesh";
static const char key[] = "neighbours";

/* The index in the list, or `count`. */
static size_t place_of(const struct addr *list, size_t count, const struct addr *addr)
{
    size_t i = 0;
    while (i < count && !addr_equal(&list[i], addr))
        i++;
    return i;
}

static bool take_out(struct addr *list, size_t *count, const struct addr *addr)
{
    size_t i = place_of(list, *count, addr);
    if (i == *count)
        return false;
    memmove(list + i, list + i + 1, (--*count - i) * sizeof *list);
    return true;
}

void mesh_bootstrap(struct mesh *mesh, const struct addr *addr)
{
    if (mesh->seed_count < MESH_MAX_SEEDS && !addr_equal(addr, &mesh->address) &&
        place_of(mesh->seeds, mesh->seed_count, addr) == mesh->seed_count)
        mesh->seeds[mesh->seed_count++] = *addr;
}

const struct addr *mesh_next_seed(struct mesh *mesh)
{
    size_t count = mesh->seed_count + mesh->met_count;
    if (count == 0 || mesh_now(mesh) < mesh->seed_after_ms)
        return NULL;
    size_t rounds = mesh->seed_next / count;
    mesh->seed_after_ms = mesh_now(mesh) + ((uint64_t)SEED_PAUSE_MS << (rounds < 4 ? rounds : 4));
    size_t i = mesh->seed_next++ % count;
    return i < mesh->seed_count ? &mesh->seeds[i] : &mesh->met[i - mesh->seed_count];
}

/* ---- kept, so that a node that was killed finds the mesh again ---- */

struct keeping {
    struct mesh *mesh;
    struct buf bytes; /* owned */
};

static void write_down(struct mesh *mesh);

static void work_keep(void *arg)
{
    struct keeping *keeping = arg;
    if (store_table_put(keeping->mesh->config.store, table, key, sizeof key, keeping->bytes.data, keeping->bytes.len,
                        NULL) < 0)
        log_warn("mesh", "the addresses of neighbours were not kept");
}

static void on_kept(void *arg)
{
    OWNED(owned_free) struct keeping *keeping = arg;
    buf_release(&keeping->bytes);
    keeping->mesh->keeping = false;
    if (keeping->mesh->met_changed)
        write_down(keeping->mesh);
}

/* One at a time: two writes could pass each other. */
static void write_down(struct mesh *mesh)
{
    mesh->met_changed = true;
    struct keeping *keeping = mesh->keeping ? NULL : malloc(sizeof *keeping);
    if (!keeping)
        return;
    *keeping = (struct keeping){mesh, BUF(MESH_MAX_SEEDS * ADDR_WIRE_BYTES)};
    for (size_t i = 0; i < mesh->met_count; i++)
        addr_put(&keeping->bytes, &mesh->met[i]);
    mesh->keeping = true;
    mesh->met_changed = false;
    jobs_submit(&mesh->config.jobs, work_keep, on_kept, keeping);
}

void mesh_keep_seed(struct mesh *mesh, const struct addr *addr)
{
    bool known = take_out(mesh->met, &mesh->met_count, addr);
    if (mesh->met_count == MESH_MAX_SEEDS)
        mesh->met_count--;
    memmove(mesh->met + 1, mesh->met, mesh->met_count * sizeof *mesh->met);
    mesh->met[0] = *addr;
    mesh->met_count++;
    if (!known)
        write_down(mesh);
}

void mesh_drop_seed(struct mesh *mesh, const struct addr *addr)
{
    take_out(mesh->seeds, &mesh->seed_count, addr);
    if (take_out(mesh->met, &mesh->met_count, addr))
        write_down(mesh);
}

void mesh_load_seeds(struct mesh *mesh)
{
    OWNED(buf_release) struct buf bytes = BUF(MESH_MAX_SEEDS * ADDR_WIRE_BYTES);
    struct err err;
    if (store_table_get(mesh->config.store, table, key, sizeof key, &bytes, &err) < 0) {
        log_warn("mesh", "cannot read the addresses of neighbours why=\"%s\"", err.text);
        return;
    }
    struct wire in;
    wire_init(&in, bytes.data, bytes.len);
    while (wire_left(&in) >= ADDR_WIRE_BYTES && mesh->met_count < MESH_MAX_SEEDS) {
        struct addr addr = addr_get(&in);
        if (!in.failed && addr_is_usable(&addr))
            mesh->met[mesh->met_count++] = addr;
    }
}
