#!/usr/bin/perl

# Connections to the hub: few for many devices, given up in time, replaced at
# once where the hub has closed them; and nothing is sent over one on which
# the hub did not prove who it is, or to an address that is none of a hub.
# See also tls.t (which certificates are refused) and retry.t.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Select;
use IO::Socket::INET;
use IO::Socket::SSL;
use IO::Socket::SSL::Utils qw(CERT_create PEM_cert2string PEM_key2string);
use JSON::PP qw(decode_json);
use List::Util qw(min);
use POSIX ();
use Socket qw(SOL_SOCKET SO_LINGER);
use Test::More;
use Time::HiRes qw(sleep time);
use IoTHubTest;
use IoTHubTest::HTTP qw(compose);

my $t = IoTHubTest->new;
my $hub = $t->hub;
my $form = 'application/x-www-form-urlencoded';


# ---- addresses where no hub is: each does one thing to whoever connects, and
# writes down what it got, in plain text or decrypted

sub certificate {
    my ($name, @issuer) = @_;

    my ($cert, $key) = CERT_create(subject => { commonName => $name },
        @issuer ? (issuer => \@issuer, purpose => 'server',
                   subjectAltNames => [[DNS => $name]])
                : (CA => 1));

    return ($cert, $key, $t->write_file("$name.pem", PEM_cert2string($cert)),
            $t->write_file("$name.key", PEM_key2string($key)));
}

my ($ca_cert, $ca_key, $ca) = certificate('authority');
my (undef, undef, $unknown) = certificate('nobody');
my (undef, undef, $own_pem, $own_key)
    = certificate('sink.azure-devices.net', $ca_cert, $ca_key);


sub reset_of {
    my ($s) = @_;

    setsockopt $s, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0);
    close $s;
}


# what the other side sends until it closes, but for the records of a
# handshake and an alert, if it speaks TLS

sub drain {
    my ($s) = @_;

    my ($all, $n) = ('', 0);

    for (;;) {
        IO::Select->new($s)->can_read(5) or last
            unless $s->can('pending') && $s->pending;

        $n = sysread $s, $all, 65536, length $all;

        last if defined $n ? $n == 0 : !$!{EAGAIN} && !$!{EINTR};
    }

    while ($all =~ /^[\x15\x16]\x03/ && length $all >= 5) {
        $all = substr $all, min(length $all, 5 + unpack 'x3n', $all);
    }

    return $all;
}


sub after_hello {
    my ($s, $bytes) = @_;

    sysread $s, my $hello, 65536;
    syswrite $s, $bytes;

    return drain($s);
}


my %sinks = (

    # takes the connection, and says nothing
    (map { $_ => sub { drain($_[0]) } } qw(silent waiting)),

    # ends the connection, where the hub would go on with the handshake
    closing => sub {
        sysread $_[0], my $hello, 65536;
        close $_[0];
        return '';
    },

    resetting => sub {
        sysread $_[0], my $hello, 65536;
        reset_of($_[0]);
        return '';
    },

    # one that does not speak TLS
    plain => sub { after_hello($_[0], "HTTP/1.1 204 No Content\r\n\r\n") },

    # a handshake that does not go on
    half => sub { after_hello($_[0], "\x16\x03\x03\x40\x00\x02") },

    map { my $version = $_;
          "speaks-$version" => sub {
              my $tls = IO::Socket::SSL->start_SSL($_[0], SSL_server => 1,
                  SSL_version => substr($version, 0, 7),
                  SSL_cert_file => $own_pem, SSL_key_file => $own_key)
                  or return '';

              return drain($tls);
          } } qw(TLSv1_2 TLSv1_3 TLSv1_3-trusted),
);


# sink(NAME): in a process of its own; returns its port

my @sinks;

sub sink {
    my ($name) = @_;

    my $listen = IO::Socket::INET->new(Listen => 64,
        LocalAddr => '127.0.0.1') or die "listen: $!\n";
    my $log = $t->write_file("sink-$name", '');
    my $pid = fork() // die "fork: $!\n";

    if ($pid) {
        push @sinks, $pid;
        return $listen->sockport;
    }

    # each connection in a child: one that hangs holds back no other

    $SIG{$_} = 'DEFAULT' for qw(TERM INT HUP);
    $SIG{CHLD} = $SIG{PIPE} = 'IGNORE';

    for (;;) {
        my $s = $listen->accept or next;

        next if fork();

        my $got = $sinks{$name}->($s);

        open my $f, '>>', $log;
        print $f "connected\n", length $got ? "got: $got\n" : '';
        close $f;
        POSIX::_exit(0);
    }
}

my %port = map { $_ => sink($_) } sort keys %sinks;

END { kill TERM => @sinks if @sinks }

my $closed = $t->port('closed');


sub block {
    my ($name, $more) = @_;

    return $hub->block("zone 1m; register missing rate=off; " . ($more // ''))
        =~ s/^iothub \S+/iothub $name/r;
}


sub no_hub {
    my ($name, $port, $hostname, $trusted, $patience) = @_;

    $hostname //= 'sink.azure-devices.net';
    $trusted //= $ca;

    return "iothub $name { hostname $hostname; address 127.0.0.1:$port; "
        . 'policy gateway; key_file ' . $hub->key_file . '; zone 1m; '
        . "proxy_ssl_trusted_certificate $trusted; "
        . 'proxy_connect_timeout ' . ($patience // '900ms') . '; }';
}

my @blocks = (
    block('contoso'),
    block('five', 'keepalive_requests 5;'),
    block('old', 'keepalive_time 1s;'),
    block('idle', 'keepalive_timeout 500ms;'),
    block('one', 'keepalive 1;'),
    block('careless', 'proxy_ssl_verify off;'),
    block('strict') =~ s/(trusted_certificate) \S+;/$1 $ca;/r,
    (map { no_hub($_, $port{$_}) } grep { !/speaks|waiting/ } sort keys %port),
    no_hub('refusing', $closed),
    (map { (no_hub("$_-name", $port{$_}, 'other.azure-devices.net'),
            no_hub("$_-ca", $port{$_}, undef, $unknown)) }
        grep { /speaks.*\d$/ } sort keys %port),
    no_hub('trusted', $port{'speaks-TLSv1_3-trusted'}),
    no_hub('waiting', $port{waiting}, undef, undef, '10s'),
);

my $late = $t->hub(name => 'late');

# one worker: what it keeps is known

$t->nginx(join("\n", @blocks, $late->block, <<'CONF'), workers => 1);

    iothub_secret off;

    log_format outcome '$iothub_device_id $iothub_result $iothub_tries '
                       '$iothub_delivery_time';
    access_log %%TESTDIR%%/access.log outcome;

    server {
        listen 127.0.0.1:%%PORT_8080%%;

        location / { iothub_pass $arg_hub; }
        location /soon { iothub_deadline 2s; iothub_pass $arg_hub; }
    }

CONF


sub webhook {
    my ($device, $name, $uri) = @_;

    return [POST => ($uri // '/') . '?hub=' . ($name // 'contoso'),
            body => "event=temp&coreid=$device&data=1",
            headers => { 'Content-Type' => $form }];
}


sub alone {
    my ($answer) = $t->parallel([webhook(@_)], 1);

    return $answer->{status};
}


# the connections of a device's calls, one by one

sub conns {
    return map { $_->{conn} } $hub->journal(device => $_[0]);
}


sub logged {
    my ($device) = @_;

    $t->wait_for_log(qr/^$device /, file => 'access.log');

    return split ' ', ($t->log_lines(qr/^$device /, 'access.log'))[0];
}


subtest 'few connections for many devices, known and new' => sub {
    my $devices = 300;
    my $concurrency = 8;
    my @devices = map { "d-$_" } 1 .. $devices;

    $hub->add(@devices[0 .. 149]);

    my $before = $hub->connections->{accepted};
    my @answers = $t->parallel([map { webhook($_) } @devices], $concurrency);
    my @journal = $hub->journal(brief => 1, device => qr/^d-/);
    my (%ops, %on);

    $ops{ $_->{op} }++ for @journal;
    $on{ $_->{conn} }{ $_->{op} }++ for @journal;

    is((grep { $_->{status} == 204 } @answers), $devices, 'all delivered');
    is_deeply(\%ops, { send => $devices + 150, create => 150 },
              'calls of both kinds');
    cmp_ok($hub->connections->{accepted} - $before, '<=', $concurrency,
           'not more connections than webhooks at once');
    ok((grep { $_->{send} && $_->{create} } values %on),
       'messages and identities share them');
};


subtest 'keepalive_requests' => sub {
    $hub->add('five');
    alone('five', 'five') for 1 .. 17;

    my @sent = $hub->journal(device => 'five');
    my %on;

    $on{ $_->{conn} }++ for @sent;
    is(scalar @sent, 17, 'each once');
    is_deeply([sort { $b <=> $a } values %on], [5, 5, 5, 2],
              'five on a connection');
};


subtest 'keepalive_time: none is used that is too old' => sub {
    $hub->add('old');
    alone('old', 'old') for 1 .. 3;
    sleep 1.2;
    alone('old', 'old') for 1 .. 3;

    my @on = conns('old');

    is_deeply([@on[1 .. 3]], [($on[0]) x 3],
              'its age is looked at after a call');
    isnt($on[4], $on[0], 'then a fresh one');
    is($on[5], $on[4], 'which is kept');
};


subtest 'keepalive_timeout: none is used that was idle for long' => sub {
    $hub->add('idle');
    $hub->control(DELETE => 'connections');
    is(alone('idle', 'idle'), 204, 'delivered');

    my $start = time;

    ok($t->_until(10, sub { $hub->connections->{open} == 0 }),
       'nginx closes it');
    cmp_ok(time - $start, '>', 0.4, 'after that time');
    is(alone('idle', 'idle'), 204, 'delivered');

    my @on = conns('idle');

    isnt($on[-1], $on[0], 'on a fresh one');
};


subtest 'keepalive: not more than that stay open' => sub {
    my @devices = map { "one-$_" } 1 .. 6;

    $hub->add(@devices);
    $hub->control(DELETE => 'connections');
    $hub->faults([{ op => 'send', device_re => '^one-', delay => 400,
                    times => 6 }]);

    my @answers = $t->parallel([map { webhook($_, 'one') } @devices], 6);

    is((grep { $_->{status} == 204 } @answers), 6, 'six at once');
    ok($t->_until(10, sub { $hub->connections->{open} == 1 }),
       'one is kept');
    $hub->faults([]);
};


# A connection that was kept and is dead is found out only by its use, if the
# hub closes it as the next request comes.

# fill(COUNT): so many connections that are kept

sub fill {
    my ($count) = @_;

    my @devices = map { "fill-$_" } 1 .. $count;

    $hub->add(@devices);
    $hub->faults([{ op => 'send', device_re => '^fill-', delay => 500 }]);
    $t->parallel([map { webhook($_) } @devices], $count);
    $hub->faults([]);
}

my %deaths = (
    'closed' => { close => 'before' },
    'closed at the head' => { close => 'request' },
    'reset' => { reset => JSON::PP::true },
);

subtest 'kept, and dead: a fresh one at once' => sub {
    for my $death (sort keys %deaths) {
        my $device = 'dead-' . $death =~ s/ /-/gr;
        my $kept = 5;

        $hub->control(DELETE => 'connections');
        fill($kept);
        is($hub->connections->{open}, $kept, "$death: $kept are kept");

        $hub->add($device);
        $hub->faults([{ op => 'send', device => $device, times => $kept,
                        %{ $deaths{$death} } }]);

        is(alone($device), 204, "$death: delivered");

        my @sent = $hub->journal(device => $device);
        my %ids = map { $_->{headers}{'iothub-messageid'} => 1 } @sent;
        my %bodies = map { $_->{body} => 1 } @sent;
        my %on = map { $_->{conn} => $_->{reqn} } @sent;

        # what the hub has not read of a request is not in its journal
        delete $bodies{''} if $death =~ /head/;

        my (undef, undef, $tries) = logged($device);

        is(scalar @sent, $kept + 1, "$death: tried on each of them, and then "
           . 'on one more');
        is($sent[-1]{reqn}, 1, "$death: which is fresh");
        is(scalar keys %on, $kept + 1, "$death: on none twice");
        is(scalar keys %ids, 1, "$death: with one message id");
        is(scalar keys %bodies, 1, "$death: and one body");
        is($tries, 1, "$death: that costs no try, and no wait");
        is(scalar $hub->messages(device => $device), 1,
           "$death: one message");
    }

    # while it was idle

    fill(5);
    $hub->control(DELETE => 'connections');
    $hub->add('dead-idle');
    is(alone('dead-idle'), 204, 'idle: delivered');
    is(scalar $hub->journal(device => 'dead-idle'), 1, 'idle: one call');
    is(scalar $t->log_lines(qr/\[error\].*"POST .*dead-idle/), 0,
       'idle: no error of it');

    # a creation

    $hub->control(DELETE => 'connections');
    fill(3);
    $hub->faults([{ op => 'create', device => 'dead-create', times => 3,
                    close => 'before' }]);
    is(alone('dead-create'), 204, 'a creation: delivered');
    is(join(' ', map { "$_->{op} $_->{status}" }
            $hub->journal(device => 'dead-create')),
       'send 404 create 0 create 0 create 0 create 200 send 204',
       'a creation: repeated likewise');
};


subtest 'a fresh one that dies is a failure, and waits' => sub {
    $hub->control(DELETE => 'connections');
    $hub->add('fresh');
    $hub->faults([{ op => 'send', device => 'fresh', times => 2,
                    close => 'before' }]);

    is(alone('fresh'), 204, 'delivered');
    is(scalar $hub->journal(device => 'fresh'), 3, 'by the third call');
    is((logged('fresh'))[2], 3, 'which is the third try');
    $hub->faults([]);
};


# ---- who is no hub, or not that one

my $log = qr/SSL_do_handshake\(\) failed.*handshaking to upstream/;

my %reason = (
    silent => qr/upstream timed out .* while SSL handshaking to upstream/,
    closing => qr/peer closed connection in SSL handshake/,
    resetting => qr/(?:peer closed connection in SSL handshake|SSL_do_(?x:
                    )handshake\(\) failed.*reset by peer)/,
    plain => $log, half => $log,
    refusing => qr/connect\(\) failed \(111: Connection refused\)/,
    (map { ("speaks-TLSv1_$_-name" =>
                qr/certificate does not match "other\.azure-devices\.net"/,
            "speaks-TLSv1_$_-ca" =>
                qr/certificate verify error: \((?:19|20|21):/) } 2, 3),
);

subtest 'no hub there, or not one that proves to be it' => sub {
    my @names = sort keys %reason;

    # half a handshake is waited for, as silence is
    $reason{half} = $reason{silent};

    my @answers = $t->parallel([map { webhook("to-$_", $_, '/soon') } @names],
                               scalar @names);

    for my $i (0 .. $#names) {
        my $name = $names[$i];
        my $word = eval { decode_json($answers[$i]{body})->{code} } // 'none';

        is("$answers[$i]{status} $word", '503 unavailable', "$name: told");
        ok($answers[$i]{headers}{'retry-after'}, "$name: Retry-After");
        ok(scalar $t->log_lines(qr/\[error\].*$reason{$name}.*hub=$name /),
           "$name: the reason is in the log");
        ok(scalar $t->log_lines(qr/ event not delivered, hub: "$name", (?x:
            )device: "to-$name", step: send, result: unavailable, hub (?x:
            )status: 0,/), "$name: and the outcome");
        cmp_ok((logged("to-$name"))[2], '>', 1, "$name: after tries");
    }

    for my $name (grep { !/trusted|waiting/ } sort keys %sinks) {
        my $sink;

        ok($t->_until(10, sub {
            ($sink = $t->read_file("sink-$name")) =~ /connected/ }),
           "$name: was there");
        unlike($sink, qr/got/, "$name: got not one byte");
    }

    # all of this would have been seen

    alone('to-trusted', 'trusted', '/soon');
    ok($t->_until(10, sub { $t->read_file('sink-speaks-TLSv1_3-trusted')
                            =~ /^got: POST .*Authorization: /ms }),
       'one that proves to be it gets it all');
};


# What is not connected at the deadline sends nothing after it: who is told so
# repeats the event.

subtest 'no connection before the deadline' => sub {
    my $start = time;
    my $answer = $t->request(@{ webhook('unsent', 'waiting', '/soon') },
                             keepalive => 1);
    my $took = time - $start;
    my $word = eval { decode_json($answer->{body})->{code} } // 'none';

    is("$answer->{status} $word", '503 unavailable', 'told');
    ok($answer->{headers}{'retry-after'}, 'Retry-After');
    unlike($answer->{headers}{connection} // '', qr/close/,
           'the connection is used again');
    ok($took >= 1.95 && $took < ($t->is_static ? 3 : 2.2),
       "at the deadline: $took s");
    ok(scalar $t->log_lines(qr/ not delivered, hub: "waiting", (?x:
        )device: "unsent", step: send, result: unavailable, hub status: 0, (?x:
        ).* tries: 1: there was no connection to the hub before the (?x:
        )deadline/), 'the log tells why');
    ok($t->_until(10, sub { length $t->read_file('sink-waiting') }),
       'the connection is given up');
    is($t->read_file('sink-waiting'), "connected\n", 'it got not one byte');
};


subtest 'what one block trusts, another does not' => sub {
    $hub->add('trust');
    is(alone('trust', 'careless'), 204, 'a block that verifies nothing');

    my $before = $hub->journal(device => 'trust');

    is(alone('trust', 'strict', '/soon'), 503,
       'another one with the same address does');
    is(alone('trust', 'careless'), 204, 'nor does that change the first');
    is(scalar $hub->journal(device => 'trust'), $before + 1,
       'nothing of it was sent');
};


subtest 'a hub that is away for a moment' => sub {
    is(alone('early', 'late'), 204, 'it is there');
    $late->stop;

    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                  PeerPort => $t->port);

    print $s compose(@{ webhook('back', 'late') });
    $s->flush;

    ok($t->wait_for_log(qr/Connection refused\).*hub=late /), 'it is away');
    ok(!IO::Select->new($s)->can_read(0), 'the webhook waits');
    $late->start($t);
    ok(IO::Select->new($s)->can_read(20), 'until it is back');
    sysread $s, my $answer, 1000;
    like($answer, qr/^HTTP\/1.1 204 /, 'and is delivered');
    is(scalar $late->messages(device => 'back'), 1, 'once');
};

# ---- the defaults of a block that says nothing

SKIP: {
    my $other = IoTHubTest->new;

    $other->nginx($hub->block . <<'CONF', workers => 1, error_level => 'debug');

    iothub_secret off;

    server {
        listen 127.0.0.1:%%PORT_8080%%;
        location / { iothub_pass contoso; }
    }

CONF

    $hub->add('default');
    is($other->post('/', 'event=temp&coreid=default')->{status}, 204,
       'defaults: delivered');

    skip 'nginx has no debug log', 1 unless $other->log_lines(qr/\[debug\]/);

    ok($other->wait_for_log(
        qr/free keepalive peer: saving connection/),
       'defaults: the connection is kept');
    like($other->error_log, qr/saving connection [^\n]*\n(?x:
         )(?:[^\n]*\n){0,3}[^\n]* event timer add: \d+: 60000:/,
         'defaults: for 60 seconds');
}

$t->done;
