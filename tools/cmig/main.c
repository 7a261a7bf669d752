#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/base/crypto.h"
#include "tools/cmig/cmig.h"

static const struct command commands[] = {
    {"status", "", "what this node is and holds", node_status, 0, 0, .examples = "cmig status\ncmig status --json"},
    {"peers", "", "the nodes that this one talks to, with what was measured", node_peers, 0, 0,
     .examples = "cmig peers"},
    {"loglevel", "LEVEL", "what the daemon logs from now on: error, warn, info or debug", node_log_level, 1, 1,
     .examples = "cmig loglevel debug"},
    {"bandwidth", "[NAME=BYTES...]", "show or change what may be sent and received a second", node_bandwidth, 0, -1,
     .examples = "cmig bandwidth\ncmig bandwidth up=10M prefetch-up=512K\ncmig bandwidth up=none"},
    {"scrub", "", "read and check all that this node stores; what has rotted is fetched again", node_scrub, 0, 0,
     .flags = {{"status", 0, NULL, "only show how the reading stands, which goes on by itself all the time"}},
     .examples = "cmig scrub\ncmig scrub --status"},
    {"put", "FILE|-", "store a file as an object and print its digest", object_put, 1, 1,
     .examples = "cmig put model.bin\ntar c data | cmig put -"},
    {"get", "DIGEST", "fetch an object from whoever has it, verified", object_get, 1, 1,
     .flags = {{"output", 'o', "FILE", "write to FILE, which appears when it is whole; - is standard output"},
               {"policy", 0, "POLICY", "which nodes are turned to first: see why"},
               {"basis", 0, "FILE|DIGEST", "an older version: only what differs from it travels"}},
     .examples = "cmig get sha256:9f86... -o model.bin\ncmig get sha256:9f86... | tar x\n"
                 "cmig get sha256:9f86... -o new.img --basis old.img"},
    {"prefetch", "DIGEST...", "fetch objects that nobody waits for yet, after all other transfers", object_prefetch, 1,
     -1, .examples = "cmig prefetch sha256:9f86..."},
    {"ls", "", "the objects of this node", object_ls, 0, 0, .examples = "cmig ls --full"},
    {"rm", "CONTAINER|DIGEST...", "remove containers by name, objects by digest", container_rm, 1, -1,
     .flags = {{"force", 'f', NULL, "stop a container that runs, remove an object that is in use"}},
     .examples = "cmig rm web\ncmig rm -f web sha256:9f86..."},
    {"pin", "DIGEST...", "keep objects whatever the quota says", object_pin, 1, -1,
     .examples = "cmig pin sha256:9f86..."},
    {"unpin", "DIGEST...", "let objects be evicted again", object_unpin, 1, -1,
     .examples = "cmig unpin sha256:9f86..."},
    {"why", "KEY", "why a node is or would be chosen to get something from, with the numbers", registry_why, 1, 1,
     .flags = {{"policy", 0, "POLICY", "what decides, as 'cost' or '0.6*cost+0.4*score'; else the daemon's own"}},
     .examples = "cmig why sha256:9f86...\ncmig why 6f1c0d5e-0000-4000-8000-000000000001 --policy version\n"
                 "cmig why shop:1 --policy '0.6*cost+0.3*score+0.1*version'\ncmig why 'shop:1 alice'"},
    {"registry get", "KEY", "the members of a sorted set, or who provides something", registry_get, 1, 1,
     .flags = {{"by", 0, "ORDER", "score (the default), version, nearest or member"},
               {"low", 0, NULL, "lowest scores first"},
               {"limit", 0, "N", "at most so many (16)"}},
     .examples = "cmig registry get models\ncmig registry get models --low --limit 3\n"
                 "cmig registry get cmig:object:sha256:9f86... --by nearest"},
    {"registry set", "KEY MEMBER SCORE", "put a member into a sorted set, or change its score", registry_set, 3, 3,
     .examples = "cmig registry set models resnet 0.93\ncmig registry set models draft -- -1"},
    {"registry rm", "KEY MEMBER", "take a member out of a sorted set", registry_remove, 2, 2,
     .examples = "cmig registry rm models resnet"},
    {"registry watch", "KEY", "print the changes of a set as they come, until it is interrupted", registry_watch, 1, 1,
     .examples = "cmig registry watch models\ncmig registry watch cmig:volume:6f1c0d5e-0000-4000-8000-000000000001"},
    {"image import", "FILE|DIR|-", "take in an image: OCI layout, docker archive or root file system", image_import, 1,
     1,
     .flags = {{"format", 0, "FORMAT", "oci, docker, rootfs or auto (the default)"},
               {"name", 0, "NAME", "its name, as repository:tag; else the archive's own"}},
     .examples = "docker save app:1 | cmig image import -\ncmig image import --format rootfs --name base:1 rootfs.tar"},
    {"image ls", "", "the images of this node", image_ls, 0, 0, .examples = "cmig image ls"},
    {"image show", "NAME", "an image's layers, and how the blobs that they came as are had", image_show, 1, 1,
     .examples = "cmig image show app:1"},
    {"image rm", "NAME...", "remove images by name", image_rm, 1, -1,
     .flags = {{"force", 'f', NULL, "even if a container uses it"}}, .examples = "cmig image rm app:1"},
    {"image export", "NAME", "write an image as a tar of an OCI layout", image_export, 1, 1,
     .flags = {{"original", 0, NULL, "the layout that it was imported from, with the same digests"},
               {"output", 'o', "FILE", "write to FILE, which appears when it is whole; - is standard output"}},
     .examples = "cmig image export app:1 -o app.tar\ncmig image export --original app:1 -o app.tar"},
    {"run", "IMAGE [--] [COMMAND...]", "start a container", container_run, 1, -1, .words = true,
     .flags = {{"name", 0, "NAME", "its name; else one is made"},
               {"volume", 'v', "GUID:PATH[:ro]", "mount a volume, made if it is new; may be repeated"},
               {"env", 'e', "NAME=VALUE", "set a variable of its environment; may be repeated"},
               {"label", 0, "NAME=VALUE", "set a label; may be repeated"},
               {"user", 0, "NAME", "the user that it serves: part of the name under which checkpoints are found"},
               {"as", 'u', "UID[:GID]", "run as this user and group inside; else as the image says"},
               {"workdir", 'w', "PATH", "its working directory"}},
     .examples = "cmig run --name web -v 6f1c0d5e-0000-4000-8000-000000000001:/data app:1\n"
                 "cmig run -e MODE=test app:1 -- sh -c 'echo $MODE'"},
    {"ps", "", "the containers of this node that run", container_ps, 0, 0,
     .flags = {{"all", 'a', NULL, "those too that do not run"}}, .examples = "cmig ps -a"},
    {"logs", "CONTAINER", "what a container has written", container_logs, 1, 1,
     .flags = {{"follow", 'f', NULL, "go on as it writes more"}, {"tail", 0, "N", "only the last N lines"}},
     .examples = "cmig logs --tail 20 web\ncmig logs -f web"},
    {"stop", "CONTAINER...", "stop containers", container_stop, 1, -1,
     .flags = {{"time", 't', "SECONDS", "how long to wait before killing it (10)"}}, .examples = "cmig stop -t 30 web"},
    {"migrate", "CONTAINER", "move a running container to another node", migrate_run, 1, 1,
     .flags = {{"to", 0, "NODE", "where to, by node id (or its first digits) or name; needed"},
               {"from", 0, "NODE", "where it runs now; else this node"},
               {"policy", 0, "POLICY", "which nodes the destination turns to first: see why; else its own"}},
     .examples = "cmig migrate web --to 2fc7e1a90b4d\ncmig migrate web --to edge-2 --policy nearest"},
    {"volume ls", "", "the volumes of this node and their snapshots", node_volumes, 0, 0, .examples = "cmig volume ls"},
};

#define COMMAND_COUNT (sizeof commands / sizeof commands[0])

/* A signal handler has no other place to leave its word. */
static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    interrupted = number;
}

static bool is_interrupted(void *ctx)
{
    (void)ctx;
    return interrupted != 0;
}

/* ---- help ---- */

static void print_flags(FILE *out, const struct flag *flags)
{
    for (size_t i = 0; i < FLAGS_MAX && flags[i].name; i++) {
        char left[64];
        snprintf(left, sizeof left, "%c%c%c --%s%s%s", flags[i].letter ? '-' : ' ',
                 flags[i].letter ? flags[i].letter : ' ', flags[i].letter ? ',' : ' ', flags[i].name,
                 flags[i].value ? " " : "", flags[i].value ? flags[i].value : "");
        fprintf(out, "  %-28s %s\n", left, flags[i].help);
    }
}

static void print_help(FILE *out)
{
    fputs("usage: cmig COMMAND [FLAGS] [OPERANDS]\n\ncommands:\n", out);
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        fprintf(out, "  %-15s %s\n", commands[i].name, commands[i].summary);
    fputs("  help            this text, or that of one command\n\nflags of all commands:\n", out);
    print_flags(out, common_flags);
    fputs("      --version                print the version of cmig\n\n"
          "'cmig COMMAND --help' has flags and examples; cmig(1) has everything. The daemon is cmig-node(8).\n",
          out);
}

static void print_command_help(FILE *out, const struct command *command)
{
    fprintf(out, "usage: cmig %s%s%s%s\n\n%s\n", command->name, command->flags[0].name ? " [FLAGS]" : "",
            *command->operands ? " " : "", command->operands, command->summary);
    if (command->flags[0].name) {
        fputs("\nflags:\n", out);
        print_flags(out, command->flags);
    }
    fputs("\nflags of all commands:\n", out);
    print_flags(out, common_flags);
    fputs("\nexamples:\n", out);
    for (const char *at = command->examples; *at;) {
        int len = (int)strcspn(at, "\n");
        fprintf(out, "  %.*s\n", len, at);
        at += len + (at[len] == '\n');
    }
}

/* The commands of one subject: "cmig image". */
static bool print_subject_help(FILE *out, const char *subject)
{
    size_t len = strlen(subject), found = 0;
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strncmp(commands[i].name, subject, len) != 0 || commands[i].name[len] != ' ')
            continue;
        if (found++ == 0)
            fprintf(out, "usage: cmig %s COMMAND [FLAGS] [OPERANDS]\n\ncommands:\n", subject);
        fprintf(out, "  %-15s %s\n", commands[i].name, commands[i].summary);
    }
    return found > 0;
}

/* ---- which command ---- */

/* The command that the first one or two words name, and how many they are; NULL if none. */
static const struct command *find_command(int argc, char **argv, int *ret_words)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        const char *second = strchr(commands[i].name, ' ');
        size_t first_len = second ? (size_t)(second - commands[i].name) : strlen(commands[i].name);
        if (argc < 1 || strlen(argv[0]) != first_len || strncmp(argv[0], commands[i].name, first_len) != 0)
            continue;
        if (second && (argc < 2 || strcmp(argv[1], second + 1) != 0))
            continue;
        *ret_words = second ? 2 : 1;
        return &commands[i];
    }
    return NULL;
}

static int no_such_command(int argc, char **argv)
{
    if (argc < 1) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (print_subject_help(stderr, argv[0]))
        return EXIT_USAGE;
    if (argv[0][0] == '-')
        fprintf(stderr, "cmig: '%s' is given, but no command: see 'cmig help'\n", argv[0]);
    else
        fprintf(stderr, "cmig: there is no command '%s': see 'cmig help'\n", argv[0]);
    return EXIT_USAGE;
}

static int help(int argc, char **argv)
{
    int words;
    const struct command *command = find_command(argc, argv, &words);
    if (command)
        print_command_help(stdout, command);
    else if (argc == 0)
        print_help(stdout);
    else if (!print_subject_help(stdout, argv[0]))
        return no_such_command(argc, argv);
    return EXIT_DONE;
}

static bool wants_help(int argc, char **argv, const struct command *command)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
        if (command && command->words && argv[i][0] != '-')
            return false;
    }
    return false;
}

/* How many of the first words are flags of all commands, with their values: `cmig --json ps` is `cmig ps --json`. */
static int leading_flags(int argc, char **argv)
{
    int at = 0;
    while (at < argc && strncmp(argv[at], "--", 2) == 0) {
        const char *name = argv[at] + 2;
        size_t len = strcspn(name, "=");
        const struct flag *flag = common_flags;
        while (flag->name && (strlen(flag->name) != len || strncmp(flag->name, name, len) != 0))
            flag++;
        if (!flag->name || strcmp(flag->name, "help") == 0)
            break;
        at += flag->value && name[len] == '\0' ? 2 : 1;
    }
    return at < argc ? at : 0;
}

/* Put the `words` after the first `flags` in front of them. */
static void command_first(char **argv, int flags, int words)
{
    for (int i = 0; i < words; i++) {
        char *word = argv[flags + i];
        memmove(argv + i + 1, argv + i, (size_t)flags * sizeof *argv);
        argv[i] = word;
    }
}

/* ---- running it ---- */

static int exit_code_of(const struct cmig *cmig, int code)
{
    if (cmig->misused)
        return EXIT_USAGE;
    switch (code) {
    case ERR_NOTFOUND:
        return EXIT_NOT_FOUND;
    case ERR_DENIED:
    case ERR_AUTH:
        return EXIT_REFUSED;
    case ERR_CANCELLED:
        return interrupted ? EXIT_INTERRUPTED : EXIT_FAILED;
    case ERR_UNAVAILABLE: /* the daemon's own word is about its peers */
        return api_client_error(cmig->client) ? EXIT_FAILED : EXIT_NO_DAEMON;
    default:
        return EXIT_FAILED;
    }
}

static void print_error(const struct cmig *cmig, const struct err *err)
{
    const json_t *from_daemon = cmig->client ? api_client_error(cmig->client) : NULL;
    if (cmig->shown)
        return;
    if (cmig->json) {
        OWNED(owned_json) json_t *own = from_daemon ? NULL : api_json_error(err, "");
        show_json(from_daemon ? from_daemon : own);
        return;
    }
    const char *remedy = api_json_text(json_object_get(from_daemon, "error"), "remedy");
    fprintf(stderr, "cmig: %s\n", err->text);
    if (*remedy)
        fprintf(stderr, "      %s\n", remedy);
    if (cmig->misused)
        fprintf(stderr, "      see 'cmig %s --help'\n", cmig->command->name);
}

static int run(struct cmig *cmig, int argc, char **argv)
{
    struct err err = {0};
    int code = args_read(cmig, argc, argv, &err);
    if (code == 0)
        code = crypto_init(&err);
    if (code == 0)
        code = api_client_new(cmig->socket, &cmig->client, &err);
    if (code == 0) {
        api_client_set_cancel(cmig->client, is_interrupted, NULL);
        code = cmig->command->run(cmig, &err);
    }
    if (code == 0 && fflush(stdout) != 0)
        code = err_set(&err, ERR_IO, "cannot write to standard output");
    int status = code < 0 ? exit_code_of(cmig, code) : EXIT_DONE;
    if (code < 0)
        print_error(cmig, &err);
    return status;
}

/* No SA_RESTART: what waits is to notice. A second signal ends the process at once. */
static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

int main(int argc, char **argv)
{
    argc--, argv++;
    if (argc > 0 && strcmp(argv[0], "--version") == 0) {
        puts("cmig " CMIG_VERSION);
        return EXIT_DONE;
    }
    if (argc > 0 && (strcmp(argv[0], "help") == 0 || strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0))
        return help(argc - 1, argv + 1);
    int words = 0;
    int flags = leading_flags(argc, argv);
    const struct command *command = find_command(argc - flags, argv + flags, &words);
    command_first(argv, flags, words);
    if (!command && argc > 1 && wants_help(argc, argv, NULL))
        return help(1, argv);
    if (!command)
        return no_such_command(argc, argv);
    if (wants_help(argc - words, argv + words, command))
        return help(argc, argv);
    catch_signals();
    struct cmig cmig = {.command = command};
    int status = run(&cmig, argc - words, argv + words);
    api_client_free(cmig.client);
    args_release(&cmig);
    return status;
}
