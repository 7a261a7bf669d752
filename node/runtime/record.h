/*
 * containers/<id>/container.json: the record of one container, replaced atomically and durable when written.
 */
#pragma once

#include "node/runtime/runtime.h"

int runtime_record_write(const char *path, const struct runtime_container *container, struct err *err);
/* ERR_CORRUPT for what we cannot have written, ERR_NOTFOUND if there is none. */
int runtime_record_read(const char *path, struct runtime_container **ret_container, struct err *err);

/* Deep copy. */
int runtime_container_copy(const struct runtime_container *container, struct runtime_container **ret_copy,
                           struct err *err);
