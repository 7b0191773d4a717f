/*
 * socksload: load for a SOCKS server, with the origin server that the sessions reach through it.
 *
 *     socksload MODE -p PORT [options]
 *
 * MODE says what a session does once its CONNECT was granted:
 *
 *     rate  sends SIZE bytes, reads them back, closes: COUNT sessions, CONCURRENCY at a time
 *     rtt   does so over and over: CONCURRENCY sessions, COUNT echoes in all
 *     down  reads BYTES from the origin: COUNT sessions, CONCURRENCY at a time
 *     up    sends BYTES to the origin, which says when it has them
 *     idle  stays open: COUNT sessions, opened CONCURRENCY at a time, then held for BYTES seconds
 *     udp   (no CONNECT) one association, COUNT datagrams of SIZE bytes echoed, CONCURRENCY in flight
 *
 * Options:
 *
 *     -p PORT         the server's, on 127.0.0.1
 *     -c CONCURRENCY  (1)
 *     -n COUNT        (1)
 *     -b BYTES        (1 MiB)
 *     -s SIZE         (64)
 *     -t SECONDS      stop after so long, whatever COUNT and BYTES say; sessions under way are no failures
 *     -4              SOCKS4, or SOCKS4a together with -H; otherwise SOCKS5
 *     -H NAME         ask for the origin by this name; its addresses must be 127.0.0.1 and perhaps ::1
 *     -u USER:PASS    SOCKS5 with a password
 *     -V PORT         SOCKS5 to a second proxy, at this port of 127.0.0.1: the session asks it for the origin,
 *                     through the first one
 *     -D              no SOCKS: straight to the origin or, with -p, to a forwarder that leads there
 *     -O PORT         the origin's port (the kernel chooses)
 *     -P PID          add up the processor time and the memory of this process and its descendants
 *
 * Prints one line of key=value: ok, fail and secs, and depending on MODE
 *
 *     per_s p50us p99us    sessions, echoes or datagrams a second; how long one takes
 *     gbit                 gigabits a second
 *     cpu_us_per           microseconds of the processes' time for each of them
 *     cpu_s_per_gb         seconds of it for each gigabyte
 *     kb_per               KiB of memory (PSS) for each idle session
 *     cpu pss_mb           the processes' time in seconds, their memory in MiB at the end
 *     load_cpu             seconds of processor time that the load and its origin took themselves
 *     load_us_per          microseconds of that for each session, echo or datagram
 *
 * The status is 0 when no session failed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

enum {
    BLOCK = 1 << 18,     /* bytes of one send or recv */
    ECHO = 1 << 16,      /* bytes of one echo at the most */
    EVENTS = 512,        /* of one epoll_wait */
    TURNS = 16,          /* sends or recvs of one session in a row */
    SOURCES = 200,       /* addresses the load comes from, so that ports do not run out */
    PATIENCE = 20,       /* seconds without any event after which all is given up */
};

/* What became of a session. */
enum step { FAILED = -1, WAITING = 0, FINISHED = 1 };

/* ------------------------------------------------------------------ */
/* Small things                                                        */

static char zeros[BLOCK];
static char junk[BLOCK];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void die(const char *what)
{
    perror(what);
    exit(2);
}

static void usage(const char *what)
{
    fprintf(stderr, "socksload: %s; socksload.c says how it is used\n", what);
    exit(2);
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (!memory)
        die("calloc");
    return memory;
}

static void set(int fd, int level, int option, int value)
{
    setsockopt(fd, level, option, &value, sizeof value);
}

static void watch(int epoll, int operation, int fd, uint32_t events, void *what)
{
    struct epoll_event event = {.events = events, .data.ptr = what};
    epoll_ctl(epoll, operation, fd, &event);
}

/* All of it at once or nothing: what is sent here always fits. */
static int send_whole(int fd, const void *data, size_t size)
{
    return send(fd, data, size, MSG_NOSIGNAL) == (ssize_t)size ? 0 : -1;
}

static struct sockaddr_in loopback(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static int port_of(int fd)
{
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    if (getsockname(fd, (void *)&address, &size))
        die("getsockname");
    return ntohs(address.sin_port);
}

/* ------------------------------------------------------------------ */
/* The origin, a process of its own                                    */

/* A client says in 16 bytes what it wants: one of these letters, and at 8 a count of bytes. */
enum { SEND = 'S', SINK = 'K', REPEAT = 'E' };
enum { ORDER = 16 };

struct visit {
    int fd;
    int listening;
    int got;
    char order[ORDER];
    uint64_t left;
};

static void accept_visits(int epoll, int listening)
{
    for (int i = 0; i < 256; i++) {
        int fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0)
            return;
        set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
        struct visit *visit = allocate(1, sizeof *visit);
        visit->fd = fd;
        watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, visit);
    }
}

/* What a recv that brought nothing means. */
static enum step nothing_came(ssize_t size)
{
    return size < 0 && errno == EAGAIN ? WAITING : FAILED;
}

static enum step read_order(int epoll, struct visit *visit)
{
    ssize_t size = recv(visit->fd, visit->order + visit->got, ORDER - visit->got, 0);
    if (size <= 0)
        return nothing_came(size);
    visit->got += size;
    if (visit->got == ORDER) {
        memcpy(&visit->left, visit->order + 8, sizeof visit->left);
        if (visit->order[0] == SEND)
            watch(epoll, EPOLL_CTL_MOD, visit->fd, EPOLLOUT, visit);
    }
    return WAITING;
}

static enum step sink(struct visit *visit)
{
    for (int i = 0; i < TURNS; i++) {
        ssize_t size = recv(visit->fd, junk, sizeof junk, MSG_TRUNC);
        if (size <= 0)
            return nothing_came(size);
        int whole = visit->left && visit->left <= (uint64_t)size;
        visit->left = whole || !visit->left ? 0 : visit->left - size;
        if (whole && send_whole(visit->fd, "K", 1))
            return FAILED;
    }
    return WAITING;
}

static enum step repeat(struct visit *visit)
{
    ssize_t size = recv(visit->fd, junk, ECHO, 0);
    if (size <= 0)
        return nothing_came(size);
    return send_whole(visit->fd, junk, size) ? FAILED : WAITING;
}

static enum step pour(int epoll, struct visit *visit)
{
    for (int i = 0; i < TURNS / 2; i++) {
        if (!visit->left) {
            shutdown(visit->fd, SHUT_WR);
            visit->order[0] = SINK; /* to the client's end */
            watch(epoll, EPOLL_CTL_MOD, visit->fd, EPOLLIN, visit);
            return WAITING;
        }
        ssize_t size = send(visit->fd, zeros, visit->left < BLOCK ? visit->left : BLOCK, MSG_NOSIGNAL);
        if (size < 0)
            return nothing_came(size);
        visit->left -= size;
    }
    return WAITING;
}

static enum step serve(int epoll, struct visit *visit)
{
    if (visit->got < ORDER)
        return read_order(epoll, visit);
    switch (visit->order[0]) {
    case SEND:
        return pour(epoll, visit);
    case SINK:
        return sink(visit);
    case REPEAT:
        return repeat(visit);
    }
    return FAILED;
}

static void run_origin(const int *listening, int count)
{
    int epoll = epoll_create1(0);
    for (int i = 0; i < count; i++) {
        struct visit *door = allocate(1, sizeof *door);
        door->fd = listening[i];
        door->listening = 1;
        watch(epoll, EPOLL_CTL_ADD, door->fd, EPOLLIN, door);
    }
    struct epoll_event events[EVENTS];
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            struct visit *visit = events[i].data.ptr;
            if (visit->listening) {
                accept_visits(epoll, visit->fd);
            } else if (serve(epoll, visit) == FAILED) {
                close(visit->fd);
                free(visit);
            }
        }
    }
}

static int listen_ipv4(int port)
{
    struct sockaddr_in address = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (port)
        set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (bind(fd, (void *)&address, sizeof address) || listen(fd, 4096))
        die("listen");
    return fd;
}

/* Where a name leads to ::1 too, the origin must be there as well. */
static int listen_ipv6(int port)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    address.sin6_addr = in6addr_loopback;
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
    set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (bind(fd, (void *)&address, sizeof address) || listen(fd, 4096)) {
        close(fd);
        return -1;
    }
    return fd;
}

/* A child process that ends with this one. */
static pid_t child(void)
{
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        die("fork");
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        /* The parent may have ended before that. */
        if (getppid() != parent)
            _exit(0);
    }
    return pid;
}

static pid_t start_origin(int *port, int both_families)
{
    int listening[2], count = 0;
    listening[count++] = listen_ipv4(*port);
    *port = port_of(listening[0]);
    if (both_families) {
        listening[count] = listen_ipv6(*port);
        count += listening[count] >= 0;
    }
    pid_t pid = child();
    if (!pid)
        run_origin(listening, count);
    while (count)
        close(listening[--count]);
    return pid;
}

/* ------------------------------------------------------------------ */
/* What the processes under test take                                  */

struct usage {
    double cpu;  /* seconds */
    double pss;  /* MiB */
};

static double cpu_of(int pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    unsigned long user, system;
    char *rest = strrchr(text, ')'); /* a program's name may hold anything */
    if (!rest || sscanf(rest + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        return 0;
    return (user + system) / (double)sysconf(_SC_CLK_TCK);
}

static double pss_of(int pid)
{
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    double kib = 0;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "Pss: %lf", &kib) == 1)
            break;
    fclose(file);
    return kib / 1024;
}

static struct usage usage_of(int pid);

/* A thread's children are its process's, but each thread has a list of its own. */
static struct usage usage_of_children(int pid, const char *thread)
{
    struct usage sum = {0, 0};
    char path[300];
    snprintf(path, sizeof path, "/proc/%d/task/%s/children", pid, thread);
    FILE *file = fopen(path, "r");
    if (!file)
        return sum;
    for (int child; fscanf(file, "%d", &child) == 1;) {
        struct usage more = usage_of(child);
        sum.cpu += more.cpu;
        sum.pss += more.pss;
    }
    fclose(file);
    return sum;
}

/* Of a process and its descendants; of nothing for 0. */
static struct usage usage_of(int pid)
{
    struct usage sum = {cpu_of(pid), pss_of(pid)};
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *threads = opendir(path);
    if (!threads)
        return sum;
    for (struct dirent *thread; (thread = readdir(threads));) {
        struct usage more = usage_of_children(pid, thread->d_name);
        sum.cpu += more.cpu;
        sum.pss += more.pss;
    }
    closedir(threads);
    return sum;
}

/* Of this process and its child. */
static double own_cpu(pid_t kid)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6
           + cpu_of(kid);
}

/* ------------------------------------------------------------------ */
/* What is asked for, and what has happened                            */

struct session;

struct mode {
    const char *name;
    char order;                                             /* what the origin does */
    enum step (*begin)(struct session *);                   /* the CONNECT was granted */
    enum step (*go_on)(struct session *, uint32_t events);  /* something happened since */
};

static struct {
    const struct mode *mode;
    int port, origin_port, second_port;
    long concurrency, count;
    uint64_t bytes;
    int size;
    double seconds;
    int socks4, direct;
    char *name, *user, *password;
    int pid;
} options = {.concurrency = 1, .count = 1, .bytes = 1 << 20, .size = 64};

static int epoll;
static struct sockaddr_in server;
static unsigned char request[600], first_request[10];
static size_t request_size;

static long started, done, failed;
static uint64_t moved;           /* bytes of bulk */
static long echoes_left;
static double *times;            /* seconds, of each session or echo */
static long timed;

/* ------------------------------------------------------------------ */
/* A session: the conversation                                         */

enum state { CONNECTING, GREETING, AUTHENTICATING, REQUESTING, RELAYING };

struct session {
    int fd;
    enum state state;
    int second;                  /* the conversation is with the second proxy */
    int got;                     /* bytes of the reply */
    unsigned char reply[300];
    int idle;
    double began, asked;
    uint64_t received, unsent;
};

static size_t put_port(unsigned char *to, int port)
{
    to[0] = port >> 8;
    to[1] = port & 255;
    return 2;
}

static size_t put_text(unsigned char *to, const char *text)
{
    size_t size = strlen(text);
    memcpy(to, text, size);
    return size;
}

static size_t put_counted(unsigned char *to, const char *text)
{
    to[0] = strlen(text);
    return 1 + put_text(to + 1, text);
}

static size_t socks4_request(unsigned char *to)
{
    size_t size = 0;
    to[size++] = 4;
    to[size++] = 1;
    size += put_port(to + size, options.origin_port);
    memcpy(to + size, options.name ? "\0\0\0\1" : "\177\0\0\1", 4);
    size += 4;
    to[size++] = 0; /* the user */
    if (options.name) {
        size += put_text(to + size, options.name);
        to[size++] = 0;
    }
    return size;
}

static size_t socks5_request(unsigned char *to, const char *name, int port)
{
    memcpy(to, "\5\1\0", 3);
    size_t size = 3;
    if (name) {
        to[size++] = 3;
        size += put_counted(to + size, name);
    } else {
        memcpy(to + size, "\1\177\0\0\1", 5);
        size += 5;
    }
    return size + put_port(to + size, port);
}

static enum step ask(struct session *session, enum state next, const void *data, size_t size)
{
    session->state = next;
    session->got = 0;
    return send_whole(session->fd, data, size) ? FAILED : WAITING;
}

/* FINISHED once the reply has this many bytes. */
static enum step have(struct session *session, int wanted)
{
    while (session->got < wanted) {
        ssize_t size = recv(session->fd, session->reply + session->got, wanted - session->got, 0);
        if (size <= 0)
            return nothing_came(size);
        session->got += size;
    }
    return FINISHED;
}

static enum step granted(struct session *session)
{
    if (options.second_port && !session->second) {
        session->second = 1;
        return ask(session, GREETING, "\5\1\0", 3);
    }
    session->state = RELAYING;
    return options.mode->begin(session);
}

static enum step connected(struct session *session)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(session->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error)
        return FAILED;
    watch(epoll, EPOLL_CTL_MOD, session->fd, EPOLLIN, session);
    if (options.direct)
        return granted(session);
    if (options.socks4)
        return ask(session, REQUESTING, request, request_size);
    return ask(session, GREETING, options.user ? "\5\1\2" : "\5\1\0", 3);
}

static enum step request_it(struct session *session)
{
    if (options.second_port && !session->second)
        return ask(session, REQUESTING, first_request, sizeof first_request);
    return ask(session, REQUESTING, request, request_size);
}

static enum step authenticate(struct session *session)
{
    unsigned char message[520];
    size_t size = 0;
    message[size++] = 1;
    size += put_counted(message + size, options.user);
    size += put_counted(message + size, options.password);
    return ask(session, AUTHENTICATING, message, size);
}

static enum step greeted(struct session *session)
{
    enum step step = have(session, 2);
    if (step != FINISHED)
        return step;
    int login = options.user && !session->second;
    if (session->reply[0] != 5 || session->reply[1] != (login ? 2 : 0))
        return FAILED;
    return login ? authenticate(session) : request_it(session);
}

static enum step authenticated(struct session *session)
{
    enum step step = have(session, 2);
    if (step != FINISHED)
        return step;
    return session->reply[1] ? FAILED : request_it(session);
}

static enum step answered_socks4(struct session *session)
{
    enum step step = have(session, 8);
    if (step != FINISHED)
        return step;
    return session->reply[1] == 90 ? granted(session) : FAILED;
}

static enum step answered_socks5(struct session *session)
{
    enum step step = have(session, 5);
    if (step != FINISHED)
        return step;
    const unsigned char *reply = session->reply;
    if (reply[1])
        return FAILED;
    step = have(session, reply[3] == 1 ? 10 : reply[3] == 4 ? 22 : 7 + reply[4]);
    return step == FINISHED ? granted(session) : step;
}

static enum step proceed(struct session *session, uint32_t events)
{
    switch (session->state) {
    case CONNECTING:
        return connected(session);
    case GREETING:
        return greeted(session);
    case AUTHENTICATING:
        return authenticated(session);
    case REQUESTING:
        return options.socks4 ? answered_socks4(session) : answered_socks5(session);
    case RELAYING:
        return options.mode->go_on(session, events);
    }
    return FAILED;
}

/* ------------------------------------------------------------------ */
/* A session: what it does then                                        */

static enum step order(struct session *session)
{
    char message[ORDER] = {options.mode->order};
    memcpy(message + 8, &options.bytes, sizeof options.bytes);
    return send_whole(session->fd, message, sizeof message) ? FAILED : WAITING;
}

static enum step say(struct session *session)
{
    session->received = 0;
    session->asked = now();
    return send_whole(session->fd, zeros, options.size) ? FAILED : WAITING;
}

static enum step begin_echo(struct session *session)
{
    return order(session) == FAILED ? FAILED : say(session);
}

static enum step begin_download(struct session *session)
{
    session->received = 0;
    return order(session);
}

static enum step begin_upload(struct session *session)
{
    session->unsent = options.bytes;
    watch(epoll, EPOLL_CTL_MOD, session->fd, EPOLLIN | EPOLLOUT, session);
    return order(session);
}

static enum step begin_idle(struct session *session)
{
    session->idle = 1;
    done++;
    return WAITING;
}

/* FINISHED once the echo is whole. */
static enum step hear(struct session *session)
{
    while (session->received < (uint64_t)options.size) {
        ssize_t size = recv(session->fd, junk, sizeof junk, MSG_TRUNC);
        if (size <= 0)
            return nothing_came(size);
        session->received += size;
    }
    return session->received == (uint64_t)options.size ? FINISHED : FAILED;
}

static enum step rate(struct session *session, uint32_t events)
{
    (void)events;
    enum step step = hear(session);
    if (step == FINISHED)
        times[timed++] = now() - session->began;
    return step;
}

static enum step rtt(struct session *session, uint32_t events)
{
    (void)events;
    enum step step = hear(session);
    if (step != FINISHED)
        return step;
    times[timed++] = now() - session->asked;
    return --echoes_left < 0 ? FINISHED : say(session);
}

static enum step download(struct session *session, uint32_t events)
{
    (void)events;
    for (int i = 0; i < TURNS; i++) {
        ssize_t size = recv(session->fd, junk, sizeof junk, MSG_TRUNC);
        if (!size)
            return session->received == options.bytes ? FINISHED : FAILED;
        if (size < 0)
            return nothing_came(size);
        session->received += size;
        moved += size;
    }
    return WAITING;
}

static enum step pour_up(struct session *session)
{
    for (int i = 0; i < TURNS / 2 && session->unsent; i++) {
        ssize_t size = send(session->fd, zeros, session->unsent < BLOCK ? session->unsent : BLOCK, MSG_NOSIGNAL);
        if (size < 0)
            return nothing_came(size);
        session->unsent -= size;
        moved += size;
    }
    if (!session->unsent)
        watch(epoll, EPOLL_CTL_MOD, session->fd, EPOLLIN, session);
    return WAITING;
}

static enum step upload(struct session *session, uint32_t events)
{
    if ((events & EPOLLOUT) && pour_up(session) == FAILED)
        return FAILED;
    if (!(events & (EPOLLIN | EPOLLHUP)))
        return WAITING;
    char receipt;
    ssize_t size = recv(session->fd, &receipt, 1, 0);
    return size == 1 ? FINISHED : nothing_came(size);
}

static enum step idle(struct session *session, uint32_t events)
{
    (void)events;
    char any;
    ssize_t size = recv(session->fd, &any, 1, MSG_PEEK);
    return size > 0 ? WAITING : nothing_came(size);
}

/* ------------------------------------------------------------------ */
/* All sessions                                                        */

static void start(void)
{
    static uint32_t sequence;
    struct session *session = allocate(1, sizeof *session);
    session->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (session->fd < 0)
        die("socket");
    set(session->fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set(session->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + sequence++ % SOURCES);
    if (bind(session->fd, (void *)&source, sizeof source))
        die("bind");
    session->began = now();
    started++;
    if (connect(session->fd, (void *)&server, sizeof server) && errno != EINPROGRESS) {
        failed++;
        done++;
        close(session->fd);
        free(session);
        return;
    }
    watch(epoll, EPOLL_CTL_ADD, session->fd, EPOLLOUT, session);
}

static void finish(struct session *session, enum step step)
{
    if (session->idle) { /* it counts as done already, and should have stayed */
        failed++;
        close(session->fd);
        free(session);
        return;
    }
    done++;
    if (step == FAILED) {
        failed++;
        struct linger reset = {1, 0};
        setsockopt(session->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    }
    close(session->fd);
    free(session);
}

static int turn(int milliseconds)
{
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(epoll, events, EVENTS, milliseconds);
    for (int i = 0; i < ready; i++) {
        struct session *session = events[i].data.ptr;
        enum step step = proceed(session, events[i].events);
        if (step != WAITING)
            finish(session, step);
    }
    return ready;
}

static double run_sessions(long goal)
{
    double began = now(), last = began;
    while (done < goal) {
        if (options.seconds && now() - began >= options.seconds)
            break;
        while (started < goal && started - done < options.concurrency)
            start();
        if (turn(options.seconds ? 20 : 1000) > 0) {
            last = now();
        } else if (now() - last > PATIENCE) {
            fprintf(stderr, "stalled with %ld sessions started and %ld done\n", started, done);
            failed += goal - done;
            done = goal;
        }
    }
    return now() - began;
}

static void hold(double seconds)
{
    for (double end = now() + seconds; now() < end;)
        turn(100);
}

/* ------------------------------------------------------------------ */
/* UDP                                                                 */

static int receive_whole(int fd, unsigned char *data, int size)
{
    for (int got = 0; got < size;) {
        ssize_t more = recv(fd, data + got, size - got, 0);
        if (more <= 0)
            return -1;
        got += more;
    }
    return 0;
}

static int udp_socket(void)
{
    struct sockaddr_in address = loopback(0);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    set(fd, SOL_SOCKET, SO_RCVBUF, 4 << 20);
    if (bind(fd, (void *)&address, sizeof address))
        die("bind");
    return fd;
}

static void run_udp_origin(int fd)
{
    for (;;) {
        struct sockaddr_in from;
        socklen_t length = sizeof from;
        ssize_t size = recvfrom(fd, junk, 1 << 16, 0, (void *)&from, &length);
        if (size > 0)
            sendto(fd, junk, size, 0, (void *)&from, length);
    }
}

/* A connection that reaches the second proxy through the first one; NULL with what was refused. */
static const char *reach_second(int fd)
{
    unsigned char reply[10];
    socks5_request(first_request, NULL, options.second_port);
    if (send_whole(fd, "\5\1\0", 3) || receive_whole(fd, reply, 2) || reply[1])
        return "greeting refused";
    if (send_whole(fd, first_request, sizeof first_request) || receive_whole(fd, reply, 10) || reply[1])
        return "no connection to the second proxy";
    return NULL;
}

/* The relay's address, from the reply to an ASSOCIATE; NULL with what was refused. */
static const char *associate(int fd, int second, struct sockaddr_in *relay)
{
    static char refusal[64];
    unsigned char reply[10];
    struct timeval patience = {PATIENCE, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(fd, (void *)&server, sizeof server))
        return "no connection";
    const char *unreached = second ? reach_second(fd) : NULL;
    if (unreached)
        return unreached;
    if (send_whole(fd, "\5\1\0", 3) || receive_whole(fd, reply, 2) || reply[1])
        return "greeting refused";
    if (send_whole(fd, "\5\3\0\1\0\0\0\0\0\0", 10) || receive_whole(fd, reply, 4))
        return "no reply to the ASSOCIATE";
    if (reply[1]) {
        snprintf(refusal, sizeof refusal, "ASSOCIATE refused with %d", reply[1]);
        return refusal;
    }
    if (reply[3] != 1 || receive_whole(fd, reply + 4, 6))
        return "no IPv4 address in the reply to the ASSOCIATE";
    *relay = server;
    if (memcmp(reply + 4, "\0\0\0\0", 4))
        memcpy(&relay->sin_addr, reply + 4, 4);
    memcpy(&relay->sin_port, reply + 8, 2);
    return NULL;
}

static size_t datagram_header(unsigned char *to, const struct sockaddr_in *address)
{
    memcpy(to, "\0\0\0\1", 4);
    memcpy(to + 4, &address->sin_addr, 4);
    memcpy(to + 8, &address->sin_port, 2);
    return 10;
}

/* Datagrams that came back; *quiet grows by the seconds in which there was nothing but waiting for lost ones. */
static long exchange(int fd, const unsigned char *datagram, size_t header, double *quiet)
{
    size_t size = header + options.size;
    long sent = 0, got = 0, lost = 0;
    while (got + lost < options.count) {
        while (sent < options.count && sent - got - lost < options.concurrency) {
            if (send_whole(fd, datagram, size))
                break;
            sent++;
        }
        ssize_t came = recv(fd, junk, 1 << 16, 0);
        if (came < 0) { /* a second of silence: what is out now will not come */
            lost = sent - got;
            *quiet += 1;
            if (*quiet > 5)
                break;
        } else if ((size_t)came != size || memcmp(junk, datagram, header)) {
            fprintf(stderr, "a datagram of %zd bytes that was never sent\n", came);
            break;
        } else {
            got++;
        }
    }
    return got;
}

static int run_udp(void)
{
    int origin = udp_socket();
    pid_t kid = child();
    if (!kid)
        run_udp_origin(origin);
    struct sockaddr_in relay, second_relay, destination = loopback(port_of(origin));
    struct timeval second = {1, 0};
    const char *refusal = associate(socket(AF_INET, SOCK_STREAM, 0), 0, &relay);
    if (!refusal && options.second_port)
        refusal = associate(socket(AF_INET, SOCK_STREAM, 0), 1, &second_relay);
    if (refusal) {
        fprintf(stderr, "%s\n", refusal);
        return 1;
    }
    int fd = udp_socket();
    if (connect(fd, (void *)&relay, sizeof relay))
        die("connect");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second);

    static unsigned char datagram[1 << 17];
    size_t header = options.second_port ? datagram_header(datagram, &second_relay) : 0;
    header += datagram_header(datagram + header, &destination);
    struct usage before = usage_of(options.pid);
    double began = now(), quiet = 0;
    long got = exchange(fd, datagram, header, &quiet);
    double seconds = now() - began - quiet;
    struct usage after = usage_of(options.pid);
    double cpu = after.cpu - before.cpu, load = own_cpu(kid);
    long each = got ? got : 1;
    printf("mode=udp conc=%ld ok=%ld fail=%ld secs=%.3f per_s=%.0f", options.concurrency, got, options.count - got,
           seconds, got / seconds);
    printf(" cpu_us_per=%.1f load_us_per=%.1f cpu=%.2f pss_mb=%.1f load_cpu=%.2f\n", cpu / each * 1e6,
           load / each * 1e6, cpu, after.pss, load);
    kill(kid, SIGKILL);
    return got != options.count;
}

/* ------------------------------------------------------------------ */
/* The figures                                                         */

static int compare_times(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Microseconds. */
static double percentile(double part)
{
    return timed ? times[(long)(part * (timed - 1))] * 1e6 : 0;
}

static void print_figures(double seconds, struct usage before, struct usage after, pid_t kid)
{
    const char *mode = options.mode->name;
    double cpu = after.cpu - before.cpu, load = own_cpu(kid), gigabytes = moved / 1e9;
    printf("mode=%s conc=%ld ok=%ld fail=%ld secs=%.3f", mode, options.concurrency, done - failed, failed, seconds);
    if (moved)
        printf(" gbit=%.2f cpu_s_per_gb=%.3f", gigabytes * 8 / seconds, cpu / gigabytes);
    if (timed)
        printf(" per_s=%.0f p50us=%.1f p99us=%.1f cpu_us_per=%.1f load_us_per=%.1f", timed / seconds,
               percentile(.5), percentile(.99), cpu / timed * 1e6, load / timed * 1e6);
    if (!strcmp(mode, "idle"))
        printf(" pss_mb_before=%.1f kb_per=%.2f", before.pss, (after.pss - before.pss) * 1024 / (done ? done : 1));
    printf(" cpu=%.2f pss_mb=%.1f load_cpu=%.2f\n", cpu, after.pss, load);
}

/* ------------------------------------------------------------------ */

static const struct mode modes[] = {
    {"rate", REPEAT, begin_echo, rate},
    {"rtt", REPEAT, begin_echo, rtt},
    {"down", SEND, begin_download, download},
    {"up", SINK, begin_upload, upload},
    {"idle", REPEAT, begin_idle, idle},
    {"udp", 0, NULL, NULL},
};

static const struct mode *mode_named(const char *name)
{
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(modes[i].name, name))
            return &modes[i];
    usage("no such mode");
    return NULL;
}

static void set_user(char *text)
{
    char *colon = strchr(text, ':');
    if (!colon || strlen(text) > 500)
        usage("-u takes USER:PASS");
    *colon = 0;
    options.user = text;
    options.password = colon + 1;
}

static void read_options(int count, char **words)
{
    if (count < 2)
        usage("no mode");
    options.mode = mode_named(words[1]);
    optind = 2;
    for (int option; (option = getopt(count, words, "p:4u:c:n:b:s:t:H:DP:O:V:")) > 0;) {
        switch (option) {
        case 'p': options.port = atoi(optarg); break;
        case '4': options.socks4 = 1; break;
        case 'u': set_user(optarg); break;
        case 'c': options.concurrency = atol(optarg); break;
        case 'n': options.count = atol(optarg); break;
        case 'b': options.bytes = strtoull(optarg, NULL, 10); break;
        case 's': options.size = atoi(optarg); break;
        case 't': options.seconds = atof(optarg); break;
        case 'H': options.name = optarg; break;
        case 'D': options.direct = 1; break;
        case 'P': options.pid = atoi(optarg); break;
        case 'O': options.origin_port = atoi(optarg); break;
        case 'V': options.second_port = atoi(optarg); break;
        default: usage("no such option");
        }
    }
    if (options.size < 1 || options.size > ECHO - ORDER)
        usage("SIZE out of range");
    if (options.name && strlen(options.name) > 255)
        usage("NAME too long");
    if (options.concurrency < 1 || options.count < 1)
        usage("CONCURRENCY and COUNT are 1 or more");
    if (!options.port && !options.direct)
        usage("no port");
    if (options.second_port && (options.socks4 || options.direct))
        usage("-V goes with SOCKS5 alone");
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static int run_tcp(void)
{
    pid_t kid = start_origin(&options.origin_port, options.name != NULL);
    if (!options.port)
        server = loopback(options.origin_port);
    request_size =
        options.socks4 ? socks4_request(request) : socks5_request(request, options.name, options.origin_port);
    socks5_request(first_request, NULL, options.second_port);
    epoll = epoll_create1(0);
    int echoing = options.mode->go_on == rtt;
    long goal = echoing ? options.concurrency : options.count;
    echoes_left = options.count - options.concurrency;
    times = allocate(options.count + options.concurrency + 1, sizeof *times);

    struct usage before = usage_of(options.pid);
    double seconds = run_sessions(goal);
    if (options.mode->go_on == idle)
        hold(options.bytes);
    struct usage after = usage_of(options.pid);
    qsort(times, timed, sizeof *times, compare_times);
    print_figures(seconds, before, after, kid);
    kill(kid, SIGKILL);
    waitpid(kid, NULL, 0);
    return failed > 0;
}

int main(int count, char **words)
{
    read_options(count, words);
    raise_descriptor_limit();
    server = loopback(options.port);
    return options.mode->go_on ? run_tcp() : run_udp();
}
