package IoTHubTest;

use strict;
use warnings;

use Carp qw(croak);
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Path qw(remove_tree);
use File::Temp qw(tempdir);
use IO::Socket::INET;
use POSIX qw(WNOHANG);
use Scalar::Util qw(weaken);
use Socket qw(SOCK_DGRAM);
use Test::More ();
use Time::HiRes qw(sleep time);

use IoTHubTest::HTTP qw(compose converse);
use IoTHubTest::Hub;

my $root = abs_path(dirname(__FILE__) . '/../..');

# below the ports that the kernel gives to outgoing connections
my ($FIRST_PORT, $LAST_PORT) = (20000, 29999);

my $START_TIMEOUT = 30;
my $STOP_TIMEOUT = 20;
my $SHOWN_LINES = 100;

my $REPORT = qr/\b(?:Address|Leak|Thread|Memory|UndefinedBehavior)Sanitizer\b
                | :\ runtime\ error:\ /x;

my %live;
my $problem_after_end;

# a test that is interrupted tidies up, too
$SIG{$_} = sub { exit 1 } for qw(HUP INT TERM);


sub new {
    my ($class, %o) = @_;

    my $self = bless {
        root => $root, dir => tempdir('iothub-test-XXXXXX', TMPDIR => 1),
        crit => $o{crit} // 1, allow => [@{ $o{allow} // [] }],
        hubs => [], ports => {}, locks => [], confs => 0, pid => undef,
        unclean => [], owner => $$,
    }, $class;

    $self->{dir} = abs_path($self->{dir});
    $self->_own($self->{dir});
    chmod 0755, $self->{dir};

    $self->{nginx} = $ENV{IOTHUB_TEST_NGINX} || _find('nginx')
        || croak 'nginx is not installed: run t/run';

    $self->{module} = $ENV{IOTHUB_TEST_MODULE}
        // "$root/build/dynamic/ngx_http_iothub_module.so";

    croak "$self->{module} is missing: run t/run"
        if $self->{module} ne '' && !-f $self->{module};

    weaken($live{$self} = $self);

    return $self;
}


sub _find {
    my ($program) = @_;

    return (grep { -x } map { "$_/$program" }
        split(/:/, $ENV{PATH} // ''), '/usr/sbin', '/usr/local/sbin')[0];
}


# The user of the workers, where there is a choice.

sub _user {
    return if $> != 0;

    my @user = grep { defined getpwnam($_) && defined getgrnam($_) }
        qw(www-data nobody);

    return $user[0];
}


sub _own {
    my ($self, $path) = @_;

    my $user = _user() // return;

    chown scalar getpwnam($user), scalar getgrnam($user), $path;
}


sub dir { $_[0]{dir} }
sub debug { $ENV{IOTHUB_TEST_DEBUG} ? 1 : 0 }
sub is_static { $_[0]{module} eq '' }


# ---- files and ports

sub write_file {
    my ($self, $name, $content, $mode) = @_;

    my $path = $name =~ m{^/} ? $name : "$self->{dir}/$name";

    _make_folder(dirname($path)) unless -d dirname($path);
    unlink $path;

    open my $f, '>:raw', $path or croak "$path: $!";
    chmod $mode // 0600, $path;
    print $f $content;
    close $f or croak "$path: $!";

    $self->_own($path);

    return $path;
}


sub _make_folder {
    my ($path) = @_;

    _make_folder(dirname($path)) unless -d dirname($path);
    mkdir $path, 0755;
}


sub read_file {
    my ($self, $name) = @_;

    return $self->_slurp($name =~ m{^/} ? $name : "$self->{dir}/$name");
}


sub _slurp {
    my ($self, $path) = @_;

    open my $f, '<:raw', $path or return '';
    local $/;

    return scalar(<$f>) // '';
}


# A UDP socket on the same port tells other tests that the port is taken, from
# now on and until this test ends.

sub port {
    my ($self, $name) = @_;

    $name //= 8080;

    return $self->{ports}{$name} //= do {
        my ($port, $lock);

        for (1 .. 1000) {
            $port = $FIRST_PORT + int rand($LAST_PORT - $FIRST_PORT + 1);

            $lock = IO::Socket::INET->new(Proto => 'udp',
                LocalAddr => "127.0.0.1:$port") or next;

            last if IO::Socket::INET->new(Proto => 'tcp', Listen => 1,
                LocalAddr => "127.0.0.1:$port", ReuseAddr => 1);

            undef $lock;
        }

        croak 'no free port' unless $lock;

        push @{ $self->{locks} }, $lock;
        $port;
    };
}


sub expand {
    my ($self, $text) = @_;

    my %plain = (TESTDIR => $self->{dir}, MODULE => $self->{module},
                 PORT => undef);

    $text =~ s{%%([A-Z]+)(?:_([A-Za-z0-9-]+))?%%}{
        my ($what, $name) = ($1, $2);

        $what eq 'PORT' ? $self->port($name)
            : $plain{$what} // $self->_expand_hub($what, $name);
    }ge;

    return $text;
}


sub _expand_hub {
    my ($self, $what, $name) = @_;

    my ($hub) = grep { !defined $name || $_->name eq $name }
        @{ $self->{hubs} };

    my %of = (HUB => 'port', CA => 'ca', KEY => 'key_file',
              HOSTNAME => 'hostname', POLICY => 'policy', IOTHUB => 'block');

    my $method = $of{$what} or croak "unknown placeholder %%$what%%";

    croak "no hub for %%$what" . (defined $name ? "_$name" : '') . '%%'
        unless $hub;

    return $hub->$method;
}


# ---- processes

# _spawn(LOG, COMMAND...): starts a program that ends with this one

sub _spawn {
    my ($self, $log, @command) = @_;

    my $setpriv = _find('setpriv');

    unshift @command, $setpriv, '--pdeathsig', 'TERM', '--' if $setpriv;

    my $pid = fork() // croak "fork: $!";

    if ($pid == 0) {
        open STDIN, '<', '/dev/null';
        open STDOUT, '>>', $log or POSIX::_exit(126);
        open STDERR, '>&', \*STDOUT;

        exec { $command[0] } @command or POSIX::_exit(127);
    }

    return $pid;
}


# _until(SECONDS, CONDITION): what CONDITION said once it was true

sub _until {
    my ($self, $timeout, $condition) = @_;

    my $deadline = time + $timeout;

    for (;;) {
        my $true = $condition->();

        return $true if $true;
        return if time > $deadline;

        sleep 0.01;
    }
}


sub hub {
    my ($self, %o) = @_;

    push @{ $self->{hubs} }, IoTHubTest::Hub->_start($self, %o);

    return $self->{hubs}[-1];
}


# ---- nginx

# All that is added stands on the first line, so that the line numbers in
# nginx's messages are those of the test's text.

sub _conf {
    my ($self, $conf, %o) = @_;

    my $dir = $self->{dir};
    my $user = _user();
    my $level = $self->debug ? 'debug' : $o{error_level} // 'info';
    my $whole = $conf =~ /^\s*http\s*\{/m;

    my %main = (
        daemon => $o{daemon} ? 'on' : 'off', pid => "$dir/nginx.pid",
        error_log => "$dir/error.log $level",
        worker_processes => $o{workers} // 2,
        defined $user ? (user => "$user $user") : (),
    );

    my $head = $self->{module} ne '' && !$o{no_module}
        ? "load_module $self->{module}; " : '';

    for my $name (sort keys %main) {
        $head .= "$name $main{$name}; "
            unless $whole && $conf =~ /^\s*$name\s/m;
    }

    $head .= "$o{main} " if defined $o{main};
    $head .= 'events { } ' unless $whole && $conf =~ /^\s*events\b/m;

    my $http = join '', map { "${_}_temp_path $dir/$_; " }
        qw(client_body proxy fastcgi uwsgi scgi);

    $http .= "access_log $dir/access.log; " unless $conf =~ /\baccess_log\s/;

    if ($whole) {
        $conf =~ s/^(\s*http\s*\{)/$1 $http/m;

    } else {
        $conf = "http { $http$conf\n}\n";
    }

    return $self->expand($head . $conf);
}


sub _command {
    my ($self, @arguments) = @_;

    my @command = ($self->{nginx}, '-p', "$self->{dir}/", '-e', 'stderr',
                   @arguments);

    if ($ENV{IOTHUB_TEST_VALGRIND}) {
        unshift @command, _find('valgrind') // croak('no valgrind'), '-q',
            "--log-file=$self->{dir}/valgrind.%p";
    }

    return @command;
}


# nginx overwrites its environment with the titles of its processes, so that
# the symbolizer must not be looked for in PATH.

sub _sanitizer_env {
    my ($leaks) = @_;

    my ($symbolizer) = grep { -x }
        '/usr/bin/llvm-symbolizer', glob('/usr/bin/llvm-symbolizer-*');

    my @common = defined $symbolizer
        ? "external_symbolizer_path=$symbolizer" : ();

    return (
        ASAN_OPTIONS => $ENV{ASAN_OPTIONS} // join(':', @common,
            "detect_leaks=$leaks", 'detect_odr_violation=0',
            'detect_stack_use_after_return=1'),
        LSAN_OPTIONS => $ENV{LSAN_OPTIONS} // join(':',
            "suppressions=$root/t/lib/lsan.supp", 'print_suppressions=0'),
        UBSAN_OPTIONS => $ENV{UBSAN_OPTIONS}
            // join(':', @common, 'print_stacktrace=1'),
    );
}


sub nginx {
    my ($self, $conf, %o) = @_;

    croak 'nginx runs already' if defined $self->{pid};

    $self->write_file('nginx.conf', $self->_conf($conf, %o));
    $self->{options} = \%o;
    unlink "$self->{dir}/nginx.pid";

    local %ENV = (%ENV, _sanitizer_env(1), %{ $o{env} // {} });

    $self->{pid} = $self->_spawn("$self->{dir}/stderr.log",
        $self->_command('-c', "$self->{dir}/nginx.conf"));

    $self->{detached} = 0;

    if ($o{daemon}) {
        waitpid $self->{pid}, 0;
        croak "nginx did not start: ", $self->all_logs if $? != 0;

        $self->{detached} = 1;
        $self->{pid} = $self->_until($START_TIMEOUT, sub { $self->_pid })
            // croak 'nginx writes no pid';
    }

    my $up = $self->_until($START_TIMEOUT, sub {
        if ($self->_ended($self->{pid})) {
            $self->{pid} = undef;
            croak "nginx did not start: ", $self->all_logs;
        }

        -s "$self->{dir}/nginx.pid" && $self->_workers_up;
    });

    croak "nginx is not up after $START_TIMEOUT seconds" unless $up;

    return $self;
}


sub _pid { return $_[0]->read_file('nginx.pid') =~ /^(\d+)$/m ? $1 : undef }


# _ended(PID): of a master; $? is its status if it is a child

sub _ended {
    my ($self, $pid) = @_;

    return waitpid($pid, WNOHANG) != 0 unless $self->{detached};

    $? = 0;

    # whose child it is now may not wait for it
    return $self->_slurp("/proc/$pid/stat") !~ /^\d+ \(.*\) [^ZX]/s;
}


# The workers serve as soon as the master listens; but what they do at their
# start is done only when they all run.

sub _workers_up {
    my ($self, %old) = @_;

    my $conf = $self->read_file('nginx.conf');

    return 1 if $conf =~ /\bmaster_process\s+off;/;

    my ($count) = $conf =~ /\bworker_processes\s+(\d+);/;

    return grep({ !$old{$_} } $self->worker_pids) >= ($count // 1);
}


sub nginx_t {
    my ($self, $conf, %o) = @_;

    my $n = ++$self->{confs};
    my $folder = defined $o{folder} ? "$self->{dir}/$o{folder}" : $self->{dir};
    my $name = "$folder/test-$n";

    $self->write_file("$name.conf", $self->_conf($conf, %o));

    # nginx does not tidy up where it refuses a configuration
    local %ENV = (%ENV, _sanitizer_env(0), %{ $o{env} // {} });

    my $pid = $self->_spawn("$name.log",
        $self->_command($o{dump} ? '-T' : '-t', '-c', "$name.conf"));

    waitpid $pid, 0;

    my $output = $self->_slurp("$name.log");

    return ($? >> 8 || ($? ? 255 : 0), $output);
}


sub worker_pids {
    my ($self, $master) = @_;

    my @workers;

    $master //= $self->{pid};
    return @workers unless defined $master;

    # under valgrind processes have no titles of their own
    my %logged = map { $_ => 1 }
        $self->error_log =~ /: start worker process (\d+)$/mg;

    for my $stat (glob '/proc/[0-9]*/stat') {
        my ($pid, $parent) = $self->_slurp($stat) =~ /^(\d+) \(.*\) \S (\d+) /s
            or next;

        push @workers, $pid if $parent == $master && ($logged{$pid}
            || $self->_slurp("/proc/$pid/cmdline") =~ /^nginx: worker proc/);
    }

    @workers = sort { $a <=> $b } @workers;

    return @workers;
}


sub master_pid { $_[0]{pid} }
sub signal { kill $_[1], $_[0]{pid} }


sub reload {
    my ($self, $conf, %o) = @_;

    %o = (%{ $self->{options} }, %o);

    $self->write_file('nginx.conf', $self->_conf($conf, %o))
        if defined $conf;

    my %old = map { $_ => 1 } $self->worker_pids;
    my $refusals = () = $self->error_log =~ /\[emerg\]/g;

    $self->signal('HUP');

    my $result = $self->_until($START_TIMEOUT, sub {
        return 'refused' if $refusals < (() = $self->error_log =~ /\[emerg\]/g);
        return 'up' if $self->_workers_up(%old);
    });

    return 0 if ($result // '') ne 'up';
    return 1 unless $o{wait_old};

    return $self->_until($STOP_TIMEOUT,
        sub { !grep { $old{$_} } $self->worker_pids }) // 0;
}


sub upgrade {
    my ($self) = @_;

    my $old = $self->{pid};

    kill USR2 => $old;

    my $new = $self->_until($START_TIMEOUT, sub {
        my $pid = $self->_pid;

        defined $pid && $pid != $old ? $pid : undef;
    }) or return;

    $self->{pid} = $new;
    $self->_until($START_TIMEOUT, sub { $self->_workers_up }) or return;

    return $old;
}


sub stop {
    my ($self, $signal) = @_;

    my $pid = $self->{pid} // return 1;
    my $status = 0;

    kill $signal // 'QUIT', $pid;

    my $ended = $self->_until($STOP_TIMEOUT, sub {
        $self->_ended($pid) or return 0;
        $status = $?;
        1;
    });

    if (!$ended) {
        push @{ $self->{unclean} },
            "nginx did not quit within $STOP_TIMEOUT seconds";

        kill KILL => $self->worker_pids, $pid;
        waitpid $pid, 0;

    } elsif ($status != 0) {
        push @{ $self->{unclean} }, sprintf 'nginx exited with status %d%s',
            $status >> 8, $status & 127 ? ', signal ' . ($status & 127) : '';
    }

    $self->{pid} = undef;

    return $ended && $status == 0;
}


# ---- logs

sub error_log {
    my ($self, %o) = @_;

    my $log = $self->read_file('error.log');

    # a line of the level debug may go on over several
    $log =~ s{^\S+ \S+ \[debug\] .*?(?=^\d{4}/\d\d/\d\d |\z)}{}gms
        if $o{no_debug};

    return $log;
}


sub access_log { $_[0]->read_file('access.log') }


sub all_logs {
    my ($self) = @_;

    return join '', map { $self->_slurp($_) } glob("$self->{dir}/*.log"),
        glob("$self->{dir}/valgrind.*");
}


sub log_lines {
    my ($self, $pattern, $name) = @_;

    return grep { $_ =~ $pattern }
        split /^/m, $self->read_file($name // 'error.log');
}


sub wait_for_log {
    my ($self, $pattern, %o) = @_;

    my $count = $o{count} // 1;

    return $self->_until($o{timeout} // 15,
        sub { $self->log_lines($pattern, $o{file}) >= $count }) // 0;
}


sub allow {
    my ($self, @patterns) = @_;

    push @{ $self->{allow} }, @patterns;
}


# ---- requests

sub http {
    my ($self, $raw, %o) = @_;

    $o{port} //= $self->port;

    return converse($raw, %o);
}


sub request {
    my ($self, $method, $uri, %o) = @_;

    return $self->http(compose($method, $uri, %o), %o);
}


sub get {
    my ($self, $uri, %headers) = @_;

    return $self->request(GET => $uri, headers => \%headers);
}


sub post {
    my ($self, $uri, $body, %headers) = @_;

    my $text = ref $body ? $body->[0] // '' : $body;

    $headers{'Content-Type'} = $text =~ /^\s*[\[{]/
        ? 'application/json' : 'application/x-www-form-urlencoded'
        unless grep { lc eq 'content-type' } keys %headers;

    delete $headers{$_} for grep { !defined $headers{$_} } keys %headers;

    return $self->request(POST => $uri, body => $body, headers => \%headers);
}


sub parallel {
    my ($self, $requests, $concurrency, %o) = @_;

    my @raw = map {
        my %r = ref $_ eq 'HASH' ? %$_ : ();

        ref $_ eq 'ARRAY'
            ? compose(@$_[0, 1], keepalive => $o{keepalive}, @$_[2 .. $#$_])
            : ref $_ eq 'HASH'
            ? compose(delete $r{method} // 'GET', delete $r{uri} // '/',
                      keepalive => $o{keepalive}, %r)
            : $_;
    } @$requests;

    my $answers = IoTHubTest::HTTP::parallel(\@raw, $concurrency // 10,
        %o, port => $o{port} // $self->port);

    return wantarray ? @$answers : $answers;
}


sub has_http2 {
    my $curl = _find('curl') // return 0;

    return scalar `$curl --version` =~ /^Features:.*\bHTTP2\b/m;
}


sub http2 {
    my ($self, $method, $uri, %o) = @_;

    my @headers = ref($o{headers}) eq 'HASH'
        ? %{ $o{headers} } : @{ $o{headers} // [] };

    my $n = ++$self->{confs};
    my $port = $o{port} // $self->port;
    my @command = (_find('curl'), '-s', '-i', '--http2-prior-knowledge',
        '--noproxy', '*', '-m', $o{timeout} // 30, '-X', $method);

    push @command, '-H', splice(@headers, 0, 1) . ': ' . shift @headers
        while @headers;

    push @command, '--data-binary',
        '@' . $self->write_file("h2-$n.body", $o{body}) if defined $o{body};

    my $start = time;
    my $pid = $self->_spawn("$self->{dir}/h2-$n.answer", @command, '--',
        "http://127.0.0.1:$port$uri");

    waitpid $pid, 0;

    # curl shows an HTTP/2 answer with its lengths and chunks taken off
    my $raw = $self->read_file("h2-$n.answer");
    my ($head, $body) = split /\r\n\r\n/, $raw, 2;
    my ($status) = ($head // '') =~ m{^HTTP/2 (\d+)};
    my %headers = map { /^([^:]+):\s*(.*?)\s*$/ ? (lc $1, $2) : () }
        split /\r\n/, $head // '';

    return {
        status => $status // 0, version => '2', headers => \%headers,
        body => $body // '', head => $head // '', raw => $raw,
        complete => $? == 0 ? 1 : 0, time => time - $start, curl => $? >> 8,
    };
}


# ---- the end

sub _bad_log_lines {
    my ($self) = @_;

    my $levels = $self->{crit} ? 'alert|emerg|crit' : 'alert|emerg';

    return grep {
        my $line = $_;

        $line =~ m{^\d{4}/\d\d/\d\d [\d:]{8} \[(?:$levels)\]}
            && !grep { $line =~ $_ } @{ $self->{allow} };
    } split /^/m, $self->read_file('stderr.log') . $self->error_log;
}


sub _reports {
    my ($self) = @_;

    my @reports = grep { $_ =~ $REPORT } split /^/m, $self->all_logs;

    return @reports, map { $self->_slurp($_) }
        glob "$self->{dir}/valgrind.*";
}


# _findings(): what is wrong, a text for each implicit test

sub _findings {
    my ($self) = @_;

    $self->stop;

    for my $hub (@{ $self->{hubs} }) {
        $hub->_stop or push @{ $self->{unclean} },
            'the simulator ' . $hub->name . ' had to be killed';
    }

    return (
        ['no alerts in the error log', join '', $self->_bad_log_lines],
        ['no sanitizer or valgrind reports', join '', $self->_reports],
        ['all processes ended well', join "\n", @{ $self->{unclean} }],
    );
}


sub finish {
    my ($self) = @_;

    return if $self->{finished}++;

    my $builder = Test::More->builder;

    for my $finding ($self->_findings) {
        my ($name, $text) = @$finding;

        $builder->is_eq($text, '', $name);
    }

    $self->_clean_up($builder->is_passing);
}


# What to show of the logs: a report, if there is one, or else their end.

sub _telling_lines {
    my ($self) = @_;

    my @logs = (glob("$self->{dir}/hub-*/output.log"),
                map { "$self->{dir}/$_" } qw(stderr.log error.log));

    my @lines = grep { !/ closed keepalive connection$/ }
        map { split /^/m, $self->_slurp($_) } @logs;

    my ($first) = grep { $lines[$_] =~ $REPORT } 0 .. $#lines;

    $first //= @lines > $SHOWN_LINES ? @lines - $SHOWN_LINES : 0;

    return splice @lines, $first, $SHOWN_LINES;
}


sub _clean_up {
    my ($self, $good) = @_;

    Test::More::diag("of the logs in $self->{dir}:\n", $self->_telling_lines)
        unless $good;

    delete $live{$self};
    $self->{locks} = [];

    if ($ENV{IOTHUB_TEST_LEAVE}) {
        Test::More::diag("left: $self->{dir}");

    } else {
        remove_tree($self->{dir}, { error => \my $ignored });
    }
}


sub done {
    my ($self) = @_;

    $_->finish for grep { defined } values %live;

    Test::More::done_testing();
}


# A test that forgot to finish, or died: where its plan leaves no room for the
# implicit tests, a finding makes it fail by its exit status.

sub DESTROY {
    my ($self) = @_;

    return if $self->{finished}++ || $self->{owner} != $$;

    local ($@, $?, $!);

    my @bad = grep { $_->[1] ne '' } $self->_findings;

    Test::More::diag("$_->[0]:\n$_->[1]") for @bad;

    $problem_after_end = 1 if @bad;
    $self->_clean_up(!@bad && Test::More->builder->is_passing);
}


END {
    my $status = $?;

    $_->DESTROY for grep { defined && $_->{owner} == $$ } values %live;

    $? = $status || ($problem_after_end ? 1 : 0);
}


1;

__END__

=head1 NAME

IoTHubTest - runs nginx and hub simulators for a test, and speaks to them

=head1 SYNOPSIS

    use strict;
    use warnings;

    use FindBin;
    use lib "$FindBin::Bin/lib";
    use Test::More;
    use IoTHubTest;

    my $t = IoTHubTest->new();
    my $hub = $t->hub(name => 'contoso');

    $t->nginx(<<'CONF');

    %%IOTHUB%%

    server {
        listen 127.0.0.1:%%PORT_8080%%;
        location /particle { iothub_pass contoso; }
    }

    CONF

    my $r = $t->post('/particle', 'event=temp&coreid=e00fce68&data=21');

    is($r->{status}, 204, 'delivered');
    is(scalar $hub->messages, 1, 'one message');

    $t->done;

=head1 DESCRIPTION

Each object has a folder of its own, ports of its own, at most one nginx and
any number of hubs.  Tests may run in parallel and as any user; under root the
workers run as www-data, to whom the folder and its files belong.

At the end three more tests are made: that the error log has no line of the
levels alert, emerg and crit, that there is no report of a sanitizer or of
valgrind, and that all processes ended by themselves and well.  "exited on
signal" and "open socket left" are alerts.  The logs are printed if the test
failed.

=head2 The test

=over

=item new(%options)

C<< allow => [qr/.../] >>: lines of the error log that are expected;
C<< crit => 0 >>: lines of the level crit are no failure.

=item allow(@patterns)

More lines that are expected.

=item done()

Ends the test: stops everything, makes the implicit tests and calls
done_testing().  Instead of it, finish() may be called for one object, and a
plan must count its three tests.  An object that is neither finished nor done
is checked when it goes away; then what is wrong makes the exit status 1.

=item is_static(), debug()

Is the module in nginx?  Is the error log at level debug?

=item dir()

The folder.  It is left where it is if IOTHUB_TEST_LEAVE is set.

=item write_file($name, $content, $mode)

Writes a file in the folder, of mode 0600 if not told, and returns its path.
read_file($name) returns the content, "" if there is no such file.

=item port($name)

The real port behind a name, which is any word, by habit a number; 8080 if not
told.  It is nobody else's until the object is gone.

=item expand($text)

The text with its placeholders replaced:

    %%TESTDIR%%     the folder
    %%PORT_8080%%   port(8080)
    %%MODULE%%      the path of the module, empty if it is in nginx
    %%HUB%%         the port of the first hub; %%HUB_name%%: of that hub
    %%CA%%          likewise, the file with its CA certificate
    %%KEY%%         likewise, the file with the keys of its policy
    %%HOSTNAME%%    likewise, its host name
    %%POLICY%%      likewise, the name of its policy
    %%IOTHUB%%      likewise, the iothub block for it, of one line

=back

=head2 nginx

=over

=item nginx($conf, %options)

Starts nginx and waits until it is up, dies if it does not come up.  $conf is
what stands in http{}, or, if it has a line "http {", a whole configuration.
Placeholders are replaced, and what a test does not care about is added:
load_module, user, pid, error_log, events, paths of temporary files, and
access_log if there is none.  All that is added stands on the first line, so
the line numbers in nginx's messages are those of $conf.

Options: C<workers> (2), C<main> (text for the main level), C<error_level>
(info), C<no_module> (do not load the module), C<env> (a hash), C<daemon> (in
the background, which an upgrade needs; its exit status is not known then).

=item nginx_t($conf, %options)

Runs nginx -t, or with C<< dump => 1 >> nginx -T; returns its exit status and
its output.

=item reload($conf, %options)

Sends HUP, with a new configuration if one is given, and waits until the new
workers run; with C<< wait_old => 1 >> also until the old ones are gone.
False if nginx refused the configuration.

=item stop($signal)

Stops nginx, gracefully (QUIT) if not told otherwise, and waits for its end.
It can be started again.

=item worker_pids($master), master_pid(), signal($name)

signal() sends to the master.

=item upgrade()

Starts another master, of the binary and the configuration that are there, and
waits until its workers run; from then on it is the object's nginx.  Returns
the old master's pid, whose end is the test's business; nothing if there is no
new one.  Needs C<daemon>.

=item error_log(), access_log(), log_lines($pattern, $name)

The text of a log; those of its lines that match.  C<< error_log(no_debug => 1)
>> leaves out the lines of the level debug, in which nginx itself prints
requests with all their headers.

=item wait_for_log($pattern, count => 1, file => 'error.log', timeout => 15)

Waits for lines of a log; false if they did not come.  nginx writes the access
log after the answer, so a test must wait for its lines.

=back

=head2 Requests

An answer is a hash: C<status> (0 if there was none), C<headers> (names in
lower case, values of one name joined by ", "), C<body> (without its chunks),
C<head> and C<raw> (as they came), C<version>, C<complete> (false if the
connection ended too early), C<time> (seconds),
C<at> (when it had come).

=over

=item get($uri, %headers)

=item post($uri, $body, %headers)

$body is text, or a list of the chunks of a chunked body.  Without a
Content-Type a body that starts with { or [ is JSON, any other a form; with
C<< 'Content-Type' => undef >> none is sent.

=item request($method, $uri, %options)

Options: C<headers> (a hash, or a list to keep order and repeats), C<body> (as
above), C<host>, C<version>, C<keepalive>, and those of http().

=item http($raw, %options)

Sends the bytes $raw, or, where it is a list, its parts one after the other.
Options: C<port>, C<pause> (seconds between parts, 0.05), C<timeout> (30),
C<ssl> (1, or a hash for IO::Socket::SSL), C<half_close> (shut down the
sending side), C<abort> (close without reading).

=item parallel(\@requests, $concurrency, %options)

Sends all, at most so many at once, and returns the answers in the order of
the requests: each is raw bytes, a list [method, uri, %options], or a hash
with C<method> and C<uri>.  A request is repeated on a new connection if the
connection was closed before any byte of the answer; C<tries> in the answer
counts, and C<cuts> lists them (C<time>; C<kept>: was the connection used
before?).  Options: C<keepalive> (use connections again), C<timeout>, C<port>,
C<on_answer> (called with index, answer, number of answers so far); and for
senders of more patience, each called with index and answer: C<again> (the
seconds after which it is sent once more, undef for not; the last answer is
returned, with the earlier ones in C<before>) and C<rest> (the seconds for
which there is one request less at once).

=item http2($method, $uri, %options)

Sends by curl over HTTP/2 without TLS.  has_http2() tells if curl can.

=back

=head2 Hubs

=over

=item hub(%options)

Starts a simulator.  Options: C<name> (contoso), C<hostname>
(NAME.azure-devices.net), C<tls> (1), C<policy> (gateway), C<keys> (a list of
two), C<rights> (as the simulator's --policy has them), C<policies> (more
values for --policy), C<settings>, C<faults>, C<port>, C<args>.

The object has name(), port(), ca(), hostname(), policy(), keys(), key_file(),
dir(), output() (what the simulator printed), and

=item block($more)

An iothub block for this hub, of one line, with $more in it.

=item journal(%filter), messages(%filter)

Lists from the simulator, of entries whose members are equal to those of the
filter, or match them.  C<after>, C<op>, C<device>, C<status>, C<accepted> and
C<brief> (leave out the long members) are left to the simulator, which saves
time.  forget() empties the journal.

=item connections()

What the simulator counts of connections.

=item devices(), add(@ids), remove($id), disable($id), enable($id)

=item faults(\@rules), settings(\%settings), policies(\%policies)

Without an argument faults() returns those that are set.

=item wait_for($op, $count, $timeout, %filter)

Waits until the journal has so many exchanges of that kind; false if that took
longer than $timeout (15) seconds.

=item control($method, $path, $data)

Any other of the simulator's own requests, $path without "/simulator/".

=item exchange($method, $path, %options)

Sends any request to the hub, as request() does to nginx.

=item stop(), start($test)

The simulator goes away, and comes again on the same port, with an empty
registry and journal.

=back

=head1 ENVIRONMENT

    IOTHUB_TEST_NGINX      the nginx to test, by default that of PATH
    IOTHUB_TEST_MODULE     the module to load, empty if it is in nginx
    IOTHUB_TEST_DEBUG      1: error_log at level debug
    IOTHUB_TEST_LEAVE      1: leave the folders
    IOTHUB_TEST_VALGRIND   1: run nginx under valgrind
    IOTHUB_TEST_SIMULATOR  another simulator
    IOTHUB_TEST_CHAOS      long: 20,000 webhooks in t/chaos.t
    IOTHUB_TEST_SEED       where chance starts there

=cut
