/*
 * Containers of this node: what they are, where their files lie, and what can be done to them.
 *
 * Owns DIR/containers/<id>/ (record, bundle, writable layer, log, checkpoints), DIR/volumes/<guid>/ and
 * DIR/layers/<diff_id>/ (unpacked image layers, shared). Runs nothing by itself: a driver does (driver.h).
 * Never talks to other nodes.
 *
 * Threads: every function may block (disk, runc, CRIU) and is called from jobs; the runtime locks for itself, one
 * operation at a time per container. runtime_poll is cheap and called from the loop's timer.
 *
 * Invariants:
 * 1. A container's record on disk (container.json, replaced atomically) says what should be; what is, the driver says.
 * 2. Containers live on when the process that made them dies, and are found again by runtime_open.
 * 3. A container in state INCOMING or OUTGOING belongs to a migration: nothing else starts, stops or removes it.
 * 4. Standard output and error of a container are one file on one of its own mounts, never a descriptor of the host.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/base/id.h"
#include "store/store.h"

struct runtime;

struct runtime_options {
    const char *dir;         /* the node's state directory */
    const char *runc;        /* path or name of the runtime program */
    const char *criu;        /* path or name of CRIU; a path ends in "/criu", or newer runc will not find it */
    const char *exec_helper; /* path of cmig-exec, a static program */
    uint64_t log_max_bytes;  /* of one container's log; the older half is cut away beyond it */
    struct store *store;     /* borrowed */
    struct clock clock;
};

#define RUNTIME_MAX_CONTAINERS 1024
#define RUNTIME_MAX_VOLUMES 64   /* of one container */
#define RUNTIME_MAX_STRINGS 1024 /* arguments, environment or labels of one container */

struct runtime_volume {
    struct guid guid;
    char *path; /* owned; absolute, inside the container */
    bool read_only;
};

struct runtime_strings {
    char **items; /* owned, each owned */
    size_t count;
};

/* What the user asked for, with what the image's config filled in. */
struct runtime_spec {
    char *name;         /* owned; name_is_valid; unique on the node */
    char *image;        /* owned; the name it was asked for by */
    struct id manifest; /* digest of the image's manifest */
    char *user;         /* owned; user id of the service, "" if none: part of the service's key in the DHT */
    char *workdir;      /* owned */
    uint32_t uid, gid;
    struct runtime_strings args;    /* at least one */
    struct runtime_strings env;     /* NAME=value */
    struct runtime_strings labels;  /* name=value */
    struct runtime_volume *volumes; /* owned */
    size_t volume_count;
};

/* X(name, text): CREATED was never started; EXITED ended by itself; STOPPED was stopped by the user; INCOMING is being
 * received by a migration; OUTGOING is stopped at its source until the migration has decided. */
#define RUNTIME_STATES(X)                                                                                              \
    X(RUNTIME_CREATED, "created")                                                                                      \
    X(RUNTIME_RUNNING, "running")                                                                                      \
    X(RUNTIME_EXITED, "exited")                                                                                        \
    X(RUNTIME_STOPPED, "stopped")                                                                                      \
    X(RUNTIME_INCOMING, "incoming")                                                                                    \
    X(RUNTIME_OUTGOING, "outgoing")

enum runtime_state {
#define X(name, text) name,
    RUNTIME_STATES(X)
#undef X
};

struct runtime_container {
    struct guid id;
    struct runtime_spec spec;
    enum runtime_state state;
    pid_t pid;           /* 0 unless running (or restored and stopped) */
    int exit_code;       /* of EXITED: 0-255, 128+signal, or -1 where nobody was there to see it */
    uint64_t epoch;      /* one higher with each hand-over to another node */
    uint64_t counter;    /* one higher with each snapshot or checkpoint; restarts at 0 with a new epoch */
    uint64_t created_ms; /* wall */
    uint64_t started_ms; /* wall */
};

void runtime_spec_release(struct runtime_spec *spec);
void runtime_container_free(struct runtime_container *container);

/* JSON forms, as the API shows them, container.json keeps them and a migration's manifest carries them.
 * From JSON everything is checked (names, paths absolute and without "..", counts, unknown keys): it may come from a
 * peer. A spec alone needs only name and image, the rest is runtime_fill's; that of a container must be whole. */
json_t *runtime_spec_to_json(const struct runtime_spec *spec);
int runtime_spec_from_json(const json_t *json, struct runtime_spec *ret_spec, struct err *err);
json_t *runtime_container_to_json(const struct runtime_container *container);
int runtime_container_from_json(const json_t *json, struct runtime_container **ret_container, struct err *err);

/* ---- lifecycle ---- */

/* Reads the records, looks at what really runs, marks what has ended, and sweeps what a kill has left half made. Makes
 * this process the reaper of its orphans (PR_SET_CHILD_SUBREAPER), or nobody would see how containers end. Works
 * without runc, CRIU or root: then everything that needs them fails with ERR_UNSUPPORTED and a remedy. */
int runtime_open(const struct runtime_options *options, struct runtime **ret_runtime, struct err *err);
/* Leaves the containers running. */
void runtime_close(struct runtime *runtime);

/* Versions and abilities, for admission and for `cmig status`:
 * {"runc":"1.1.5","criu":"4.1.1","kernel":"6.18…","arch":"x86_64","cpu_flags":["…"],"containers":true,
 * "checkpoints":true,"why":"…"}. Versions are "" where there is none; "why" says what is missing, or is "". */
int runtime_abilities(struct runtime *runtime, json_t **ret_json, struct err *err);

/* ---- what users do ---- */

/* Fill in from the image's config what the user left open: the manifest; its entry point in front of the arguments,
 * and its command if there are none; variables of the environment, labels, working directory; user and group if both
 * are 0 (names are looked up in the image's own etc/passwd and etc/group). ERR_NOTFOUND without the image, ERR_INVALID
 * if it names no command or an unknown user. Once per spec: the entry point would come twice. */
int runtime_fill(struct runtime *runtime, struct runtime_spec *spec, struct err *err);

/* Create and start. `spec` is whole, as runtime_fill makes it, and is stolen (emptied) on success. ERR_EXISTS if the
 * name is taken, ERR_NOTFOUND without the image, ERR_BUSY if a volume is used by another container and one of the two
 * mounts it read-write. Volumes are made if they don't exist, and belong to the container's user then. */
int runtime_run(struct runtime *runtime, struct runtime_spec *spec, struct runtime_container **ret_container,
                struct err *err);
/* SIGTERM, then SIGKILL after timeout_ms. Fine if it has ended already. */
int runtime_stop(struct runtime *runtime, const char *name, uint64_t timeout_ms, struct err *err);
/* Remove a container that does not run; its volumes stay. */
int runtime_remove(struct runtime *runtime, const char *name, struct err *err);
/* By name or by id (whole, or a prefix of 8 digits or more); a copy, free with runtime_container_free. ERR_NOTFOUND. */
int runtime_get(struct runtime *runtime, const char *name, struct runtime_container **ret_container, struct err *err);
typedef void (*runtime_each_cb)(void *ctx, const struct runtime_container *container);
void runtime_each(struct runtime *runtime, runtime_each_cb each, void *ctx);
size_t runtime_count(struct runtime *runtime);
/* Allocated path of the log; the file is only appended to, and cut at its front beyond log_max_bytes. The container
 * writes it, so its bytes are hostile, but it cannot make anything else of it than a regular file. */
int runtime_log_path(struct runtime *runtime, const char *name, char **ret_path, struct err *err);
/* Notice what has ended since the last call (reaping exit codes where this process is the parent), cut long logs. */
void runtime_poll(struct runtime *runtime);

/* Remove the unpacked layers that no image and no container has any more; to be called now and then. */
int runtime_maintain(struct runtime *runtime, struct err *err);

/* ---- volumes ---- */

/* Allocated path DIR/volumes/<guid>; made if `make`. */
int runtime_volume_path(struct runtime *runtime, const struct guid *guid, bool make, char **ret_path, struct err *err);
typedef void (*runtime_volume_cb)(void *ctx, const struct guid *guid, const char *path, const char *used_by);
int runtime_volume_each(struct runtime *runtime, runtime_volume_cb each, void *ctx, struct err *err);
int runtime_volume_remove(struct runtime *runtime, const struct guid *guid, struct err *err);

/* ---- what migrations do ---- */

/* Allocated path of the writable part of a container: its overlay upper directory and its log, to be archived with
 * overlay whiteouts on. Of an INCOMING or OUTGOING container it may be replaced until runtime_restore. */
int runtime_writable_path(struct runtime *runtime, const struct guid *id, char **ret_path, struct err *err);

/* Dump the container into `images_dir` (made, 0700, its files 0600; must not exist). With leave_running it goes on
 * afterwards; without, it is gone when this returns 0 and its state is OUTGOING. On failure it runs as before, nothing
 * of images_dir is left, and the error has what CRIU's log names as errors. A process killed in the middle finds it
 * RUNNING, or OUTGOING and gone, on its next runtime_open.
 * *ret_frozen_ms (may be NULL) is how long its tasks stood still, as far as they could see a clock: from the freezing
 * to the thaw. */
int runtime_checkpoint(struct runtime *runtime, const struct guid *id, const char *images_dir, bool leave_running,
                       uint64_t *ret_frozen_ms, struct err *err);

/* Make room for a container that comes from elsewhere: record in state INCOMING, directories, unpacked layers of its
 * image (which must be in the store), nothing mounted or started. ERR_EXISTS if its name or id is taken. */
int runtime_incoming(struct runtime *runtime, const struct runtime_container *container, struct err *err);

/* Restore from images_dir (a dump of a container with this id, from here or elsewhere) and leave every task stopped;
 * volumes and writable part must already be what they were at the dump. The state stays INCOMING or OUTGOING. What an
 * earlier restore has left is killed first; ERR_BUSY if tasks run, because a dump has not ended them or a resume came
 * before. On other failures nothing runs and the error has what CRIU's log names as errors.
 * The configuration comes from the record and this node's policy alone, but the memory, the credentials and the open
 * files of the tasks are what the images say, restored as root: they must come from who was allowed to run it. */
int runtime_restore(struct runtime *runtime, const struct guid *id, const char *images_dir, struct err *err);

/* Let a restored container run: state RUNNING, with this epoch. Repeating it is harmless. ERR_CONFLICT if no restored
 * task is there. */
int runtime_resume(struct runtime *runtime, const struct guid *id, uint64_t epoch, struct err *err);

/* Kill whatever is there of an INCOMING or OUTGOING container and remove it with its writable part, and with
 * `volumes` also its read-write volumes (their snapshots in the store stay). Repeating it is harmless. */
int runtime_discard(struct runtime *runtime, const struct guid *id, bool volumes, struct err *err);

/* Set and store epoch and counter of the container's next snapshot; returns the version through the pointers. */
int runtime_next_version(struct runtime *runtime, const struct guid *id, uint64_t *ret_epoch, uint64_t *ret_counter,
                         struct err *err);
