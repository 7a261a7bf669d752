/* What this node can do with containers, for admission and for people. */
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "node/base/scope.h"
#include "node/runtime/table.h"

/* The words of the first "flags" (x86) or "Features" (arm) line of /proc/cpuinfo. */
static json_t *cpu_flags(void)
{
    json_t *flags = json_array();
    OWNED(owned_file) FILE *file = fopen("/proc/cpuinfo", "re");
    OWNED(owned_free) char *line = NULL;
    size_t size = 0;
    while (file && getline(&line, &size, file) > 0) {
        char *rest = strchr(line, ':');
        if (!rest || (strncmp(line, "flags\t", 6) != 0 && strncmp(line, "Features\t", 9) != 0))
            continue;
        rest++;
        for (char *flag; (flag = strsep(&rest, " \n"));)
            if (flag[0])
                json_array_append_new(flags, json_string(flag));
        break;
    }
    return flags;
}

int runtime_abilities(struct runtime *runtime, json_t **ret_json, struct err *err)
{
    char engine[32] = "", checkpointer[32] = "";
    struct err why = {0};
    struct utsname host;
    if (runtime_need_driver(runtime, &why) == 0)
        (void)runtime->driver->ops->versions(runtime->driver, engine, checkpointer, &why);
    uname(&host);
    json_t *json = json_pack("{s:s, s:s, s:s, s:s, s:o, s:b, s:b, s:s}", "runc", engine, "criu", checkpointer, "kernel",
                             host.release, "arch", host.machine, "cpu_flags", cpu_flags(), "containers",
                             engine[0] != '\0', "checkpoints", engine[0] && checkpointer[0], "why", why.text);
    if (!json)
        return err_set(err, ERR_NOMEM, "no memory for the abilities");
    *ret_json = json;
    return 0;
}
