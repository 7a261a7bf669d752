/*
 * What one may tell a relay, a line each, and what it answers. docs/lab.md lists the commands for people.
 *
 *   node NAME NAMESPACE-FILE ADDRESS
 *   rate NODE|all [up=RATE] [down=RATE] [queue=TIME|BYTES]
 *   set  A|all B|all [one-way] [delay=TIME] [jitter=TIME] [loss=SHARE] [reorder=SHARE] [late=TIME]
 *   cut  A|all B|all [one-way]
 *   heal A|all B|all [one-way]
 *   show                         counters, as JSON
 *   zero                         counters begin again
 *
 * RATE: 100mbit, 64kbit, 1gbit, none. TIME: 5ms, 300us, 1s. BYTES: 64k, 1m. SHARE: 1%, 0.5%.
 */
#pragma once

#include "node/base/buf.h"
#include "node/base/err.h"
#include "tests/lab/relay_net.h"

/* Make the tun device of a node that has just been added, in the namespace of that file. */
typedef int (*control_attach_cb)(void *ctx, unsigned node, const char *namespace_file, struct err *err);

/* Carry out one line, which is taken apart in place; what there is to say is appended to `answer`. A command that fails
 * changes nothing, except that a node whose device cannot be made keeps its name and address. Returns 0 or a negative
 * code. */
int control_obey(struct net *net, char *line, struct buf *answer, control_attach_cb attach, void *ctx, struct err *err);
