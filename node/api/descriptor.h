/*
 * An open file on its way from one process to another: one byte on a UNIX stream socket, which carries the descriptor
 * (SCM_RIGHTS, unix(7)). Whoever receives one can do with the file what its opener could, whatever both may do by name.
 */
#pragma once

#include "node/base/err.h"

/* fd stays the caller's. ERR_CLOSED if nobody is there to receive it. */
int api_descriptor_send(int socket, int fd, struct err *err);

/* 1 and a descriptor of the caller's, close-on-exec; 0 if nothing has come yet; ERR_CLOSED if nothing will;
 * ERR_INVALID if what came is something else, ERR_BUSY if this process may not have one more open (EMFILE, ENFILE):
 * then one byte was taken and no descriptor stays open. */
int api_descriptor_receive(int socket, int *ret_fd, struct err *err);
