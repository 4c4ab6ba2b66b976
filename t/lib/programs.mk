# Unit programs and fuzz targets: t/build runs this in the tree of the static
# nginx, whose compiler, flags and objects it takes.  ROOT is the repository,
# OUT its build folder.

include objs/Makefile

.DELETE_ON_ERROR:

CORE_OBJS := $(shell sed -n 's,^\(objs/src/[^:]*\.o\):.*,\1,p' objs/Makefile)
ROOM_OBJS := $(shell sed -n 's,^\(objs/addon/[^:]*\.o\):.*,\1,p' objs/Makefile)

# what follows the objects where nginx is linked: the libraries
LIBS := $(shell sed -n '/-o objs.nginx/,/^$$/ { s,\\$$,,; /-o objs/d; \
            /\.o *$$/d; p }' objs/Makefile)

INCS = $(ALL_INCS) -I $(ROOT)/src -I $(ROOT)/t/unit
WARNINGS = -W -Wall -Wpointer-arith -Wno-unused-parameter -Werror

sources = $(wildcard $(ROOT)/t/$(1)/*.c)
programs = $(patsubst $(ROOT)/t/$(1)/%.c,$(OUT)/$(1)/%,$(2))

TSAN_SOURCES := $(shell grep -l '^/\* build: tsan \*/' \
                    $(call sources,unit) /dev/null)
UNIT_SOURCES := $(filter-out $(TSAN_SOURCES),$(call sources,unit))
FUZZ_ROOMS := $(patsubst $(ROOT)/src/%.c,$(OUT)/fuzz/objs/src/%.o, \
                  $(wildcard $(ROOT)/src/*.c))


.PHONY: unit unit-objects fuzz fuzz-objects

unit-objects: $(CORE_OBJS) $(ROOM_OBJS)

fuzz-objects: $(CORE_OBJS) $(FUZZ_ROOMS)

unit: $(call programs,unit,$(UNIT_SOURCES) $(TSAN_SOURCES))

fuzz: $(call programs,fuzz,$(call sources,fuzz))


# the objects of nginx, without its main() and without the module: whatever a
# program needs of the module it links from the rooms

$(OUT)/unit/objs/nginx.o: objs/src/core/nginx.o
	@mkdir -p $(@D)
	objcopy --redefine-sym main=ngx_main $< $@

$(OUT)/unit/objs/ngx_modules.o: objs/ngx_modules.c
	@mkdir -p $(@D)
	sed /ngx_http_iothub/d $< > $(@:.o=.c)
	$(CC) -c $(CFLAGS) $(ALL_INCS) -o $@ $(@:.o=.c)

$(OUT)/unit/objs/libnginx.a: $(OUT)/unit/objs/nginx.o \
		$(OUT)/unit/objs/ngx_modules.o \
		$(filter-out objs/src/core/nginx.o,$(CORE_OBJS))
	rm -f $@
	ar rcs $@ $^

$(OUT)/unit/objs/libiothub.a: $(wildcard $(ROOM_OBJS))
	@mkdir -p $(@D)
	rm -f $@
	ar rcs $@ $^

$(OUT)/fuzz/objs/libiothub.a: $(wildcard $(FUZZ_ROOMS))
	@mkdir -p $(@D)
	rm -f $@
	ar rcs $@ $^


# unit programs

$(call programs,unit,$(UNIT_SOURCES)): $(OUT)/unit/%: $(ROOT)/t/unit/%.c \
		$(OUT)/unit/objs/libiothub.a $(OUT)/unit/objs/libnginx.a
	$(CC) -c $(CFLAGS) $(INCS) -MMD -MP -MF $(OUT)/unit/objs/$*.d -MT $@ \
		-o $(OUT)/unit/objs/$*.o $<
	$(LINK) -o $@ $(OUT)/unit/objs/$*.o -Wl,--start-group \
		$(OUT)/unit/objs/libiothub.a $(OUT)/unit/objs/libnginx.a \
		-Wl,--end-group $(LIBS) -lpthread

tsan_sources = $(addprefix $(ROOT)/,$(shell \
	sed -n 's,^/\* sources: \(.*\) \*/.*,\1,p' $(ROOT)/t/unit/$(1).c))

.SECONDEXPANSION:

$(call programs,unit,$(TSAN_SOURCES)): $(OUT)/unit/%: $(ROOT)/t/unit/%.c \
		$$(call tsan_sources,$$*) $(wildcard $(ROOT)/src/*.h) \
		$(wildcard $(ROOT)/t/unit/*.h) objs/ngx_auto_config.h
	@mkdir -p $(@D)
	$(CC) -fsanitize=thread -O1 -g -pthread $(WARNINGS) $(INCS) -o $@ \
		$(filter %.c,$^)


# fuzz targets: the rooms tell the fuzzer which branches they took

$(OUT)/fuzz/objs/src/%.o: $(ROOT)/src/%.c objs/ngx_auto_config.h
	@mkdir -p $(@D)
	$(CC) -c $(CFLAGS) -fsanitize=fuzzer-no-link $(INCS) -MMD -MP -o $@ $<

$(call programs,fuzz,$(call sources,fuzz)): $(OUT)/fuzz/%: \
		$(ROOT)/t/fuzz/%.c $(OUT)/fuzz/objs/libiothub.a \
		$(OUT)/unit/objs/libnginx.a
	$(CC) -c $(CFLAGS) -fsanitize=fuzzer-no-link $(INCS) -MMD -MP \
		-MF $(OUT)/fuzz/objs/$*.d -MT $@ -o $(OUT)/fuzz/objs/$*.o $<
	$(LINK) -fsanitize=fuzzer -o $@ $(OUT)/fuzz/objs/$*.o \
		-Wl,--start-group $(OUT)/fuzz/objs/libiothub.a \
		$(OUT)/unit/objs/libnginx.a -Wl,--end-group $(LIBS) -lpthread

-include $(wildcard $(OUT)/unit/objs/*.d $(OUT)/fuzz/objs/*.d \
	$(OUT)/fuzz/objs/src/*.d)
