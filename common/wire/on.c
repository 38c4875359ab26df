/*
 * Runs a command on a host of a wire: `on server CMD` from a shell that the wire started, `on --pid
 * PID CMD` from outside, with the PID of the host's holder that the wire told when it was ready.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/options.h"
#include "common/wire/host.h"

enum { EXIT_USAGE = 2, EXIT_CANNOT_EXECUTE = 126, EXIT_NOT_FOUND = 127 };

static const char usage[] =
	"usage: on client|server COMMAND [ARGUMENT...]    in a shell that wire started\n"
	"       on --pid PID COMMAND [ARGUMENT...]        from outside; wire tells the PID\n"
	"Runs COMMAND on a host of a wire, and exits as it does (128 + the signal that ended "
	"it).\n";

static void run(char **command)
{
	execvp(command[0], command);
	int status = errno == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_EXECUTE;
	warn("cannot run %s", command[0]);
	_exit(status);
}

/*
 * Inside a wire PID 1 holds `server`, and PID 2 `client`; /proc tells whether they are what they
 * should be.
 */
static pid_t holder_of(const char *name)
{
	enum host_id host = strcmp(name, host_name(HOST_CLIENT)) == 0 ? HOST_CLIENT : HOST_SERVER;
	pid_t pid = host == HOST_CLIENT ? 2 : 1;

	if (host_is_holder(pid, host))
		return pid;
	errx(EXIT_FAILURE, "not inside a wire: start one with `wire -- bash`, or give --pid PID");
}

/*
 * Any other process has namespaces to enter as well: the machine's own, and then the command would
 * run there.
 */
static void check_holder(pid_t pid)
{
	if ((!host_is_holder(pid, HOST_CLIENT) && !host_is_holder(pid, HOST_SERVER)) ||
		host_is_here(pid))
		errx(EXIT_FAILURE,
			"--pid %d: must be the PID of a host that wire told when it was ready",
			pid);
}

static pid_t parse_pid(const char *text)
{
	char *end;
	errno = 0;
	long pid = strtol(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || pid < 1 || pid > 4194304)
		errx(EXIT_USAGE, "--pid %s: must be a process id, 1 to 4194304", text);
	return (pid_t)pid;
}

/*
 * In the child: dies with `on`, whose pidfd was open before the fork, so that an end before prctl()
 * is seen as well.
 */
static void child(char **command, int on_pidfd, const sigset_t *mask)
{
	struct pollfd parent = {.fd = on_pidfd, .events = POLLIN};

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) {
		warn("cannot be tied to its parent");
		_exit(EXIT_FAILURE);
	}
	if (on_pidfd >= 0 && poll(&parent, 1, 0) > 0)
		_exit(EXIT_FAILURE);
	sigprocmask(SIG_SETMASK, mask, NULL);
	run(command);
}

/*
 * The kernel forgets what ties the child to `on` when the child becomes a program with rights of
 * its own (ping with its capabilities). So a process beside it, in the host too, watches them both:
 * with `on` killed, it kills the child. It ends with either, and keeps nothing open that a reader
 * may wait on to be closed. Returns its PID; -1 when there is none.
 */
static pid_t watcher_start(int on_pidfd, pid_t child)
{
	int child_pidfd = (int)syscall(SYS_pidfd_open, child, 0);

	pid_t pid = on_pidfd < 0 || child_pidfd < 0 ? -1 : fork();

	if (pid != 0) {
		if (child_pidfd >= 0)
			close(child_pidfd);
		return pid;
	}
	struct pollfd fds[] = {
		{.fd = fcntl(on_pidfd, F_DUPFD, 5), .events = POLLIN},
		{.fd = fcntl(child_pidfd, F_DUPFD, 5), .events = POLLIN},
	};
	int ends[] = {3, 4};
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	setsid();
	prctl(PR_SET_NAME, "on-watch");
	for (int i = 0; i < 2; i++) {
		if (fds[i].fd < 0 || dup2(fds[i].fd, ends[i]) < 0)
			_exit(EXIT_FAILURE);
		fds[i].fd = ends[i];
	}
	for (int fd = 0; fd < 3; fd++)
		close(fd);
#ifdef SYS_close_range
	if (syscall(SYS_close_range, 5, ~0u, 0) < 0)
#endif
	{
		for (int fd = 5; fd < 1024; fd++)
			close(fd);
	}
	if (chdir("/") < 0)
		_exit(EXIT_FAILURE);
	while (poll(fds, 2, -1) <= 0)
		;
	if (fds[1].revents == 0)
		syscall(SYS_pidfd_send_signal, ends[1], SIGKILL, NULL, 0);
	_exit(EXIT_SUCCESS);
}

/* Passes signals on, and waits. A signal from the terminal reached the child by itself. */
static int wait_for(pid_t pid, const sigset_t *signals)
{
	for (;;) {
		siginfo_t info;
		int number = sigwaitinfo(signals, &info);

		if (number < 0)
			continue;
		if (number != SIGCHLD) {
			if (info.si_code != SI_KERNEL)
				kill(pid, number);
			continue;
		}
		int status;
		if (waitpid(pid, &status, WNOHANG) != pid)
			continue;
		return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	}
}

int main(int argc, char **argv)
{
	static const int passed[] = {
		SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGWINCH, SIGCHLD};
	const char *what = "";
	bool other_pids;
	pid_t holder;
	int pidfd;
	char **command;

	if (argc == 2 && strcmp(argv[1], "--help") == 0) {
		fputs(usage, stdout);
		return EXIT_SUCCESS;
	}
	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		puts("on (socklab) " SOCKLAB_VERSION);
		return EXIT_SUCCESS;
	}
	if (argc >= 4 && strcmp(argv[1], "--pid") == 0) {
		holder = parse_pid(argv[2]);
		pidfd = (int)syscall(SYS_pidfd_open, holder, 0);
		check_holder(holder);
		command = argv + 3;
	} else if (argc >= 3 &&
		   (strcmp(argv[1], "client") == 0 || strcmp(argv[1], "server") == 0)) {
		holder = holder_of(argv[1]);
		pidfd = (int)syscall(SYS_pidfd_open, holder, 0);
		command = argv + 2;
	} else {
		errx(EXIT_USAGE, "must be `on client|server COMMAND` or `on --pid PID COMMAND`");
	}

	if (pidfd < 0)
		err(EXIT_FAILURE, "cannot watch process %d", holder);
	int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (host_enter(holder, pidfd, &other_pids, &what) < 0) {
		warn("process %d: cannot %s", holder, what);
		_exit(EXIT_FAILURE);
	}
	close(pidfd);
	if (!other_pids) {
		close(self);
		run(command);
	}

	sigset_t signals;
	sigset_t before;
	sigemptyset(&signals);
	for (size_t i = 0; i < sizeof passed / sizeof passed[0]; i++)
		sigaddset(&signals, passed[i]);
	sigprocmask(SIG_BLOCK, &signals, &before);
	/* Ignored by whoever started us, it would never come. */
	signal(SIGCHLD, SIG_DFL);
	pid_t pid = fork();
	if (pid < 0) {
		warn("cannot fork");
		_exit(EXIT_FAILURE);
	}
	if (pid == 0)
		child(command, self, &before);
	pid_t watcher = watcher_start(self, pid);
	int status = wait_for(pid, &signals);

	/*
	 * It ends with the child. Left to the machine's first process it may stay a zombie for
	 * seconds, and the wire would wait for the last of its hosts' processes.
	 */
	if (watcher > 0)
		waitpid(watcher, NULL, 0);
	/*
	 * Without the handlers of exit(): a sanitizer has one that forks, and it would fork into
	 * the host.
	 */
	_exit(status);
}
