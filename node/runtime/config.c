#include "node/runtime/config.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/file.h"
#include "node/base/scope.h"
#include "node/runtime/criu.h"
#include "node/runtime/spec.h"

#define EXEC_PATH SPEC_OWN_DIR "/exec"
#define LOG_PATH SPEC_OWN_DIR "/log"
#define HOSTNAME_BYTES 63 /* a label of RFC 1035; Linux takes 64 */
#define DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

OWNED_DEFINE(owned_json, json_t, json_decref)

/* Those of `runc spec`, and what entry points need that change owners and then drop to a user. They hold in the
 * container's user namespace only. */
static const char *const capabilities[] = {"CAP_AUDIT_WRITE", "CAP_CHOWN",  "CAP_DAC_OVERRIDE",
                                           "CAP_FOWNER",      "CAP_KILL",   "CAP_NET_BIND_SERVICE",
                                           "CAP_SETGID",      "CAP_SETUID", NULL};

/* The network is the host's. No cgroup namespace: CRIU restores without a word about control groups. The user
 * namespace maps every id to itself: it bounds what root may do, and without it CRIU cannot read the limits of another
 * user's task on a host that lacks CAP_SYS_RESOURCE ("Can't get rlimit 0"). */
static const char *const namespaces[] = {"pid", "ipc", "uts", "mount", "user", NULL};

static const char *const masked_paths[] = {
    "/proc/acpi",       "/proc/asound",      "/proc/kcore",       "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", NULL};
static const char *const readonly_paths[] = {"/proc/bus",           "/proc/fs", "/proc/irq", "/proc/sys",
                                             "/proc/sysrq-trigger", NULL};

/* No /sys: it cannot be mounted in a user namespace that does not own the network's. */
static const struct {
    const char *destination, *type, *options[8];
} system_mounts[] = {
    {"/proc", "proc", {"nosuid", "noexec", "nodev"}},
    {"/dev", "tmpfs", {"nosuid", "strictatime", "mode=755", "size=65536k"}},
    {"/dev/pts", "devpts", {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
    {"/dev/shm", "tmpfs", {"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
};

static json_t *strings(const char *const *items)
{
    json_t *array = json_array();
    for (; *items; items++)
        json_array_append_new(array, json_string(*items));
    return array;
}

static json_t *arguments(const struct runtime_spec *spec)
{
    json_t *array = json_pack("[s, s]", EXEC_PATH, LOG_PATH);
    for (size_t i = 0; i < spec->args.count; i++)
        json_array_append_new(array, json_string(spec->args.items[i]));
    return array;
}

static json_t *environment(const struct runtime_spec *spec)
{
    json_t *array = json_array();
    bool has_path = false;
    for (size_t i = 0; i < spec->env.count; i++) {
        has_path |= strncmp(spec->env.items[i], "PATH=", 5) == 0;
        json_array_append_new(array, json_string(spec->env.items[i]));
    }
    if (!has_path)
        json_array_append_new(array, json_string(DEFAULT_PATH));
    return array;
}

/* Root has the capabilities; others start without any, and cannot get more than these. */
static json_t *rights(const struct runtime_spec *spec)
{
    json_t *json = json_pack("{s:o}", "bounding", strings(capabilities));
    if (spec->uid == 0) {
        json_object_set_new(json, "effective", strings(capabilities));
        json_object_set_new(json, "permitted", strings(capabilities));
    }
    return json;
}

/* No rlimits: they are inherited, and those above the hard ones of this process would be refused. */
static json_t *process(const struct runtime_spec *spec)
{
    return json_pack("{s:b, s:{s:I, s:I}, s:o, s:o, s:s, s:o, s:b}", "terminal", false, "user", "uid",
                     (json_int_t)spec->uid, "gid", (json_int_t)spec->gid, "args", arguments(spec), "env",
                     environment(spec), "cwd", spec->workdir, "capabilities", rights(spec), "noNewPrivileges", true);
}

static json_t *bind_mount(const char *source, const char *destination, const char *access, const char *more)
{
    return json_pack("{s:s, s:s, s:s, s:[s, s, s, s, s]}", "destination", destination, "type", "bind", "source", source,
                     "options", "bind", access, "nosuid", "nodev", more);
}

static int by_path(const void *left, const void *right)
{
    const struct runtime_volume *const *a = left, *const *b = right;
    return strcmp((*a)->path, (*b)->path);
}

/* In the order of their paths: a volume within another is mounted after it. */
static bool add_volumes(const struct runtime_config *config, json_t *mounts)
{
    const struct runtime_spec *spec = config->spec;
    const struct runtime_volume *sorted[RUNTIME_MAX_VOLUMES];
    for (size_t i = 0; i < spec->volume_count; i++)
        sorted[i] = &spec->volumes[i];
    qsort(sorted, spec->volume_count, sizeof *sorted, by_path);
    for (size_t i = 0; i < spec->volume_count; i++) {
        char guid[GUID_TEXT_SIZE];
        OWNED(owned_free)
        char *source = file_path("%s/%s", config->volumes_dir, guid_text(&sorted[i]->guid, guid));
        if (!source || json_array_append_new(mounts, bind_mount(source, sorted[i]->path,
                                                                sorted[i]->read_only ? "ro" : "rw", "private")) < 0)
            return false;
    }
    return true;
}

/* What a resolver reads, for the network is the host's: copies that runtime_stage_mount puts into the bundle. Before
 * the volumes, so that one on /etc hides them and is not written to. */
static bool add_host_files(const struct runtime_config *config, json_t *mounts)
{
    static const char *const names[] = {"resolv.conf", "hosts"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        OWNED(owned_free) char *source = file_path("%s/%s", config->bundle, names[i]);
        OWNED(owned_free) char *destination = file_path("/etc/%s", names[i]);
        if (!source || !destination ||
            json_array_append_new(mounts, bind_mount(source, destination, "ro", "noexec")) < 0)
            return false;
    }
    return true;
}

static json_t *mounts(const struct runtime_config *config)
{
    OWNED(owned_json) json_t *array = json_array();
    for (size_t i = 0; i < sizeof system_mounts / sizeof *system_mounts; i++)
        json_array_append_new(array, json_pack("{s:s, s:s, s:s, s:o}", "destination", system_mounts[i].destination,
                                               "type", system_mounts[i].type, "source", system_mounts[i].type,
                                               "options", strings(system_mounts[i].options)));
    if (!add_host_files(config, array) || !add_volumes(config, array))
        return NULL;
    /* A mount of the file alone: the container can write the log, but not put another thing in its place. */
    json_array_append_new(array, bind_mount(config->log, LOG_PATH, "rw", "noexec"));
    if (json_array_append_new(array, bind_mount(config->exec_helper, EXEC_PATH, "ro", "private")) < 0)
        return NULL;
    return STEAL(array);
}

static json_t *linux_part(const struct runtime_config *config)
{
    json_t *types = json_array();
    for (const char *const *type = namespaces; *type; type++)
        json_array_append_new(types, json_pack("{s:s}", "type", *type));
    json_int_t ids = SPEC_MAX_UID + 1;
    return json_pack("{s:o, s:[{s:i, s:i, s:I}], s:[{s:i, s:i, s:I}], s:s, s:{s:[{s:b, s:s}]}, s:o, s:o}", "namespaces",
                     types, "uidMappings", "containerID", 0, "hostID", 0, "size", ids, "gidMappings", "containerID", 0,
                     "hostID", 0, "size", ids, "cgroupsPath", config->cgroup, "resources", "devices", "allow", false,
                     "access", "rwm", "maskedPaths", strings(masked_paths), "readonlyPaths", strings(readonly_paths));
}

json_t *runtime_config_to_json(const struct runtime_config *config)
{
    OWNED(owned_free) char *criu_config = file_path("%s/" CRIU_CONFIG_NAME, config->bundle);
    OWNED(owned_free) char *hostname = strndup(config->spec->name, HOSTNAME_BYTES);
    if (!criu_config || !hostname)
        return NULL;
    return json_pack("{s:s, s:o, s:{s:s, s:b}, s:s, s:{s:s}, s:o, s:o}", "ociVersion", "1.0.2", "process",
                     process(config->spec), "root", "path", "rootfs", "readonly", false, "hostname", hostname,
                     "annotations", "org.criu.config", criu_config, "mounts", mounts(config), "linux",
                     linux_part(config));
}

int runtime_config_write(const struct runtime_config *config, struct err *err)
{
    OWNED(owned_free) char *path = file_path("%s/config.json", config->bundle);
    OWNED(owned_json) json_t *json = runtime_config_to_json(config);
    OWNED(owned_free) char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
    if (!path || !text)
        return err_set(err, ERR_NOMEM, "no memory for a container's configuration");
    return file_write_atomic(path, text, strlen(text), 0600, err);
}
