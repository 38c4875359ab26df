# socklab: `make help` lists what there is.

CC      ?= gcc
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
WIRE_SRC   := common/wire/main.c common/wire/fate.c common/wire/queue.c common/wire/frame.c \
	common/wire/host.c common/wire/log.c common/wire/pcapng.c
ON_SRC     := common/wire/on.c common/wire/host.c
tcp_SRC    := tcp/stream.c tcp/kernel.c
udp_SRC    := udp/kernel.c
raw_SRC    := raw/packet.c raw/kernel.c

BIN := $(addprefix build/bin/,$(TWINS) account wire on)

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

.PHONY: all
all: $(BIN) $(UNIT)

# What a build is made with; when that changes, everything is built again.
build/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(CFLAGS) $(LDFLAGS)' | cmp -s - $@ || echo '$(CC) $(CFLAGS) $(LDFLAGS)' >$@
FORCE:

build/obj/%.o: %.c build/flags
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -I. -MMD -MP -c -o $@ $<

define link_program
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) -lm
endef

define twin_rule
build/bin/$(1)-$(2): $$(call objects,$(1)/$(2).c $$($(1)_SRC) $$(COMMON_SRC))
	$$(link_program)
endef
$(foreach k,$(KINDS),$(foreach r,$(ROLES),$(eval $(call twin_rule,$(k),$(r)))))

build/bin/account: $(call objects,common/account.c $(COMMON_SRC))
	$(link_program)
build/bin/wire: $(call objects,$(WIRE_SRC) common/message.c common/clock.c common/checksum.c)
	$(link_program)
build/bin/on: $(call objects,$(ON_SRC))
	$(link_program)

define unit_rule
build/tests/$(1)_test: $$(call objects,tests/unit/$(1)_test.c $$($(1)_test_SRC))
	$$(link_program)
endef
$(foreach t,$(UNIT_TESTS),$(eval $(call unit_rule,$(t))))

-include $(shell find build/obj -name '*.d' 2>/dev/null)

.PHONY: clean
clean:
	rm -rf build
