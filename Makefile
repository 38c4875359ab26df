# socklab: `make help` lists what there is.

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:

GOALS := all run-lab labs wire diff-client diff-server diff-sender diff-receiver test bench doctor \
	lint lint-format lint-tidy lint-cppcheck lint-black lint-flake8 help clean
.PHONY: $(GOALS)

# A variable of the command line. What somebody's shell exports under that name is not meant for us.
given = $(if $(filter command,$(origin $(1))),$($(1)))

# `make run-lab 6`: the number is a goal, but only behind run-lab, and only one.
digits = $(subst 9,,$(subst 8,,$(subst 7,,$(subst 6,,$(subst 5,,$(subst 4,,$(subst 3,,$(subst \
	2,,$(subst 1,,$(subst 0,,$(1)))))))))))
ifeq ($(firstword $(MAKECMDGOALS)),run-lab)
LAB_GOALS := $(wordlist 2,99,$(MAKECMDGOALS))
LAB := $(strip $(LAB_GOALS) $(call given,N))
ifneq ($(words $(LAB)),1)
$(error run-lab: which lab? Say one number, as in `make run-lab 6`; `make labs` lists them)
endif
ifneq ($(call digits,$(LAB)),)
$(error run-lab: '$(LAB)' is no number; `make labs` lists the labs)
endif
ifeq ($(wildcard labs/$(LAB)-*/lab.py labs/0$(LAB)-*/lab.py),)
$(error run-lab: there is no lab $(LAB); `make labs` lists them)
endif
.PHONY: $(LAB_GOALS)
$(LAB_GOALS): run-lab
	@:
else
# Else a mistyped goal that is the name of a folder, as `make tests`, would be "up to date".
UNKNOWN := $(firstword $(filter-out $(GOALS) build/%,$(MAKECMDGOALS)))
ifneq ($(UNKNOWN),)
$(error there is no goal '$(UNKNOWN)'; `make help` lists what there is)
endif
endif
ifneq ($(filter clean,$(MAKECMDGOALS)),)
.NOTPARALLEL:
endif

ifeq ($(origin CC),default)
CC      := $(firstword $(notdir $(shell command -v gcc || command -v clang)) cc)
endif
OPT     ?= -O2 -g
WARN    := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wmissing-prototypes
CFLAGS  := -std=c11 -D_GNU_SOURCE -pthread $(OPT) $(WARN) $(EXTRA_CFLAGS)
LDFLAGS := -pthread $(EXTRA_LDFLAGS)
ifdef SANITIZE
CFLAGS  += -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
LDFLAGS += -fsanitize=address,undefined
endif

KINDS   := tcp udp raw
ROLES   := client server sender receiver
TWINS   := $(foreach k,$(KINDS),$(foreach r,$(ROLES),$(k)-$(r)))

COMMON_SRC := common/addr.c common/message.c common/clock.c common/schedule.c common/tally.c \
	common/report.c common/report_account.c common/options.c common/checksum.c \
	common/samples.c common/stop.c common/book.c
WIRE_SRC   := common/wire/main.c common/wire/cable.c common/wire/orders.c common/wire/fate.c common/wire/queue.c \
	common/wire/frame.c common/wire/host.c common/wire/log.c common/wire/pcapng.c
ON_SRC     := common/wire/on.c common/wire/host.c
tcp_SRC    := tcp/stream.c tcp/kernel.c
udp_SRC    := udp/kernel.c
raw_SRC    := raw/packet.c raw/kernel.c

# Programs without a twin, as KIND-FILE: one protocol needs them and the others do not.
SINGLES := tcp-write_write_read tcp-unframed tcp-states tcp-backlog udp-unconnected
# The smallest programs, whole in one file: they take nothing from common/.
TALK    := tcp-talk_server tcp-talk_client udp-talk_server udp-talk_client raw-talk_server raw-talk_client
BIN     := $(addprefix build/bin/,$(TWINS) $(SINGLES) $(TALK) account wire on by_hand)

# Preloaded into programs, to record their socket calls. Never sanitized: it goes into any program.
CALLS := build/lib/calls.so

# Unit tests: build/tests/NAME_test from tests/unit/NAME_test.c and the modules it tries.
UNIT_TESTS := tally message options schedule addr checksum fate queue frame
tally_test_SRC    := common/tally.c
message_test_SRC  := common/message.c
options_test_SRC  := common/options.c
schedule_test_SRC := common/schedule.c common/samples.c common/clock.c
addr_test_SRC     := common/addr.c
checksum_test_SRC := common/checksum.c
fate_test_SRC     := common/wire/fate.c common/wire/frame.c common/checksum.c common/message.c
queue_test_SRC    := common/wire/queue.c
frame_test_SRC    := common/wire/frame.c common/checksum.c common/message.c
UNIT := $(patsubst %,build/tests/%_test,$(UNIT_TESTS))

objects = $(patsubst %.c,build/obj/%.o,$(1))

## make: build everything (V=1 shows the commands, CC=clang takes another compiler)
all: $(BIN) $(CALLS) $(UNIT)

# What a build is made with; when that changes, everything is built again.
build/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(CFLAGS) $(LDFLAGS)' | cmp -s - $@ || echo '$(CC) $(CFLAGS) $(LDFLAGS)' >$@
FORCE:

build/obj/%.o: %.c build/flags
	@mkdir -p $(@D)
	$(if $(V),,@echo '  CC    $<')
	$(if $(V),,@)$(CC) $(CFLAGS) -I. -MMD -MP -c -o $@ $<

define link_program
	@mkdir -p $(@D)
	$(if $(V),,@echo '  LINK  $@')
	$(if $(V),,@)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) -lm
endef

define twin_rule
build/bin/$(1)-$(2): $$(call objects,$(1)/$(2).c $$($(1)_SRC) $$(COMMON_SRC))
	$$(link_program)
endef
$(foreach k,$(KINDS),$(foreach r,$(ROLES),$(eval $(call twin_rule,$(k),$(r)))))

$(foreach s,$(SINGLES),$(eval $(call twin_rule,$(word 1,$(subst -, ,$(s))),$(word 2,$(subst -, ,$(s))))))

$(filter %_server,$(addprefix build/bin/,$(TALK))): build/bin/%-talk_server: build/obj/%/talk_server.o
	$(link_program)
$(filter %_client,$(addprefix build/bin/,$(TALK))): build/bin/%-talk_client: build/obj/%/talk_client.o
	$(link_program)
build/bin/by_hand: $(call objects,tests/harness/by_hand.c)
	$(link_program)
build/bin/account: $(call objects,common/account.c $(COMMON_SRC))
	$(link_program)
build/bin/wire: $(call objects,$(WIRE_SRC) common/message.c common/clock.c common/checksum.c)
	$(link_program)
build/bin/on: $(call objects,$(ON_SRC))
	$(link_program)
$(CALLS): tests/harness/calls.c build/flags
	@mkdir -p $(@D)
	$(if $(V),,@echo '  LIB   $@')
	$(if $(V),,@)$(CC) $(filter-out -fsanitize% -fno-sanitize%,$(CFLAGS) $(LDFLAGS)) -fPIC -shared -o $@ $< -ldl

build/bench/bare: $(call objects,tests/bench/bare.c common/wire/host.c)
	$(link_program)

define unit_rule
build/tests/$(1)_test: $$(call objects,tests/unit/$(1)_test.c $$($(1)_test_SRC))
	$$(link_program)
endef
$(foreach t,$(UNIT_TESTS),$(eval $(call unit_rule,$(t))))

-include $(shell find build/obj -name '*.d' 2>/dev/null)

# The first python3 that has pytest 7 or newer (which tells its version_tuple): another one may stand in
# front of the system's on PATH.
PYTHON ?= $(firstword $(foreach p,python3 /usr/bin/python3,$(shell \
	$(p) -c 'import pytest; pytest.version_tuple' 2>/dev/null && echo $(p))))
define need_python
	@[ -n '$(PYTHON)' ] || { echo 'make: no python3 here has pytest 7 or newer:' \
		'apt install python3-pytest (Fedora: dnf install python3-pytest;' \
		'Ubuntu 22.04: pip3 install --user pytest)' >&2; exit 1; }
endef
export PYTHONPYCACHEPREFIX := $(CURDIR)/build/pycache

## make run-lab 6: run lab 6; its knobs are variables: make run-lab 6 LINK='loss 20%' SEED=3
run-lab: $(BIN) $(CALLS)
	$(need_python)
	@PYTHONPATH=tests '$(PYTHON)' -m harness.run_lab $(LAB)

## make labs: list the labs with their questions
labs:
	$(need_python)
	@PYTHONPATH=tests '$(PYTHON)' -m harness.run_lab --list

## make wire LINK='loss 5%': open a shell on the host `client`, inside a wire (also UP, DOWN, SEED, LOG, PCAP)
wire: build/bin/wire build/bin/on
	@set --; \
	$(if $(call given,LINK),set -- "$$@" --link "$$LINK";) \
	$(if $(call given,UP),set -- "$$@" --up "$$UP";) \
	$(if $(call given,DOWN),set -- "$$@" --down "$$DOWN";) \
	$(if $(call given,SEED),set -- "$$@" --seed "$$SEED";) \
	$(if $(call given,LOG),set -- "$$@" --log "$$LOG";) \
	$(if $(call given,PCAP),set -- "$$@" --pcap "$$PCAP";) \
	build/bin/wire "$$@" -- sh -c '"$${SHELL:-sh}"; :'

## make diff-client: what the protocol changes in the client (also diff-server, diff-sender, diff-receiver)
diff-client diff-server diff-sender diff-receiver: diff-%:
	@if [ -t 1 ]; then color=always; else color=never; fi; \
	show() { \
		printf '\n%s/%s.c, seen from %s/%s.c: what changes from %s to %s\n\n' \
			$$3 $* $$1 $* "$$2" "$$4"; \
		if command -v git >/dev/null; then \
			git --no-pager diff --no-index --color=$$color -- $$1/$*.c $$3/$*.c; \
		else \
			diff --color=$$color -u $$1/$*.c $$3/$*.c; \
		fi; \
		[ $$? -le 1 ]; \
	}; \
	show tcp TCP udp UDP && show udp UDP raw 'a raw socket'

# A sanitizer's verdict has an exit status that no program has: a test that expects a failure is not fooled.
# Leaks are looked for in the unit tests alone (tests/test_unit.py): the leak checker halts a process by
# ptrace through a thread of its own, and hangs where that thread starts in another PID namespace, as it
# does in wire and in on. What is preloaded comes ahead of libasan, hence verify_asan_link_order.
ifdef SANITIZE
test: export ASAN_OPTIONS := exitcode=86:verify_asan_link_order=0:detect_leaks=0
test: export UBSAN_OPTIONS := exitcode=86:print_stacktrace=1
endif
## make test: build and run every test (SANITIZE=1: with ASan and UBSan; TESTS='-k order': some of them)
test: all
	$(need_python)
	@'$(PYTHON)' -m pytest --junitxml=build/reports/junit.xml $(TESTS)

## make bench: measure round trips, messages a second and the wire, side by side with known tools
bench: $(BIN) build/bench/bare
	$(need_python)
	@PYTHONPATH=tests '$(PYTHON)' tests/harness/bench.py

## make doctor: say what this machine has and lacks, and the command that helps
ifneq ($(filter doctor,$(MAKECMDGOALS)),)
CAN_BUILD := $(shell $(CC) -include stdio.h -fsyntax-only -x c /dev/null 2>/dev/null && echo yes)
endif
doctor: $(if $(CAN_BUILD),build/bin/wire)
	@for p in '$(PYTHON)' python3 /usr/bin/python3; do \
		command -v "$$p" >/dev/null || continue; \
		CC='$(CC)' exec "$$p" tests/harness/doctor.py; \
	done; \
	echo 'make doctor: python3 is missing: apt install python3-pytest' >&2; exit 1

# Each checker that is missing is a failure: a lint that was not run has found nothing.
LINT_C  = $(shell find common tcp udp raw labs tests -name '*.c' | sort)
LINT_CH = $(shell find common tcp udp raw labs tests -name '*.[ch]' | sort)
LINT_JOBS = $(shell nproc 2>/dev/null || echo 2)
define need
	@command -v $(1) >/dev/null || { echo 'make lint: $(1) is missing: apt install $(1)' \
		'(Fedora: dnf install $(or $(2),$(1)))' >&2; exit 1; }
endef

## make lint: check format and mistakes, C and Python
lint: lint-format lint-tidy lint-cppcheck lint-black lint-flake8
lint-format:
	$(call need,clang-format,clang-tools-extra)
	@clang-format --dry-run -Werror $(LINT_CH)
lint-tidy:
	$(call need,clang-tidy,clang-tools-extra)
	@printf '%s\n' $(LINT_C) | xargs -P $(LINT_JOBS) -n 1 sh -c \
		'out=$$(clang-tidy --quiet "$$0" -- $(CFLAGS) -I. 2>&1) || { echo "$$out"; exit 1; }'
lint-cppcheck:
	$(call need,cppcheck)
	@cppcheck -q -j $(LINT_JOBS) --std=c11 --error-exitcode=1 --library=posix,gnu,bsd --suppress=arrayIndexOutOfBoundsCond -I. \
		--enable=warning,performance,portability $(LINT_C)
lint-black:
	$(call need,black)
	@black -q --check --diff -l 100 -t py39 tests labs
lint-flake8:
	$(call need,flake8,python3-flake8)
	@flake8 tests labs

## make help: this list
help:
	@sed -n 's/^## //p' $(firstword $(MAKEFILE_LIST)) | while IFS= read -r line; do \
		printf '%-24s %s\n' "$${line%%: *}" "$${line#*: }"; done

## make clean: remove what was built
clean:
	rm -rf build
