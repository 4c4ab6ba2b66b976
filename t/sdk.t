#!/usr/bin/perl

# Copyright (C) the ngx_http_iothub_module authors

# Microsoft's own SDK against the hub simulator: the simulator must be taken
# for a hub, and must see what was recorded of the SDK elsewhere (sdk/wire/).

use v5.36;
use strict;
use warnings;

use File::Copy qw(copy);
use File::Path qw(make_path);
use FindBin ();
use JSON::PP qw(decode_json);
use MIME::Base64 qw(encode_base64);
use Test::More;

use lib "$FindBin::RealBin/lib";

use IoTHub::Simulator::Process;

use constant HOST => 'testhub.azure-devices.net';

my $SDK   = "$FindBin::RealBin/sdk";
my $BUILD = "$FindBin::RealBin/../build/sdk";

my $KEY   = encode_base64('0123456789abcdef0123456789abcdef', '');
my $OTHER = encode_base64('fedcba9876543210fedcba9876543210', '');

my $SPECIAL        = "A-.:+%_#*?!(),=@;\$'z";
my $SPECIAL_DEVICE = $SPECIAL =~ tr/=;//dr;

# What each step of sdk/drive.js must lead to: the hub's operation, device
# and status, what the SDK made of it, and whether the hub took something.

my @ENQUEUED = (204, 'MessageEnqueued', 1);
my @STEPS = (
    ['registry-create-default', 'create', 'dev-1', 200, 'Object', 1],
    ['create-again', 'create', 'dev-1', 409, 'DeviceAlreadyExistsError', 0],
    ['registry-get', 'get', 'dev-1', 200, 'Object', 0],
    ['registry-update-disable', 'update', 'dev-1', 200, 'Object', 1],
    ['get-disabled', 'get', 'dev-1', 200, 'Object', 0],
    ['update-enable', 'update', 'dev-1', 200, 'Object', 1],
    ['update-missing', 'update', 'missing', 404, 'DeviceNotFoundError', 0],
    ['get-missing', 'get', 'missing', 404, 'DeviceNotFoundError', 0],
    ['registry-delete', 'delete', 'dev-1', 204, 'Object', 1],
    ['delete-again', 'delete', 'dev-1', 404, 'DeviceNotFoundError', 0],

    ['registry-create-none', 'create', 'dev-1', 200, 'Object', 1],
    ['delete-none', 'delete', 'dev-1', 204, 'Object', 1],
    ['registry-create-selfsigned', 'create', 'dev-1', 200, 'Object', 1],
    ['delete-selfsigned', 'delete', 'dev-1', 204, 'Object', 1],
    ['registry-create-ca', 'create', 'dev-1', 200, 'Object', 1],
    ['delete-ca', 'delete', 'dev-1', 204, 'Object', 1],

    ['registry-create-special-id', 'create', $SPECIAL, 200, 'Object', 1],
    ['registry-get-special-id', 'get', $SPECIAL, 200, 'Object', 0],
    ['create-illegal-id', 'create', 'invalid/name', 400, 'ArgumentError', 0],

    ['get-right-missing', 'create', 'dev-1', 401, 'UnauthorizedError', 0],
    ['get-wrong-key', 'get', 'dev-1', 401, 'UnauthorizedError', 0],

    ['registry-bulk-add', 'bulk', undef, 200, 'Object', 1],
    ['get-bulk-added', 'get', 'dev-2', 200, 'Object', 0],
    ['registry-bulk-update-force', 'bulk', undef, 200, 'Object', 1],
    ['registry-bulk-update-etag', 'bulk', undef, 400, 'ArgumentError', 0],
    ['get-bulk-updated', 'get', 'dev-1', 200, 'Object', 0],
    ['bulk-update-its-etag', 'bulk', undef, 200, 'Object', 1],
    ['registry-bulk-remove-force', 'bulk', undef, 200, 'Object', 1],
    ['get-bulk-removed', 'get', 'dev-1', 404, 'DeviceNotFoundError', 0],
    ['list', 'list', undef, 200, 'Object', 0],

    ['send-unknown', 'send', 'dev-1', 404, 'DeviceNotFoundError', 0],
    ['registry-create-sas-keys', 'create', 'dev-1', 200, 'Object', 1],
    ['d2c-plain', 'send', 'dev-1', @ENQUEUED],
    ['d2c-full-device-key', 'send', 'dev-1', @ENQUEUED],
    ['send-device-secondary', 'send', 'dev-1', @ENQUEUED],
    ['send-other-device', 'send', 'dev-2', 401, 'UnauthorizedError', 0],

    ['d2c-full-policy-key', 'send', 'dev-1', @ENQUEUED],
    ['d2c-all-system', 'send', 'dev-1', @ENQUEUED],
    ['create-special-device', 'create', $SPECIAL_DEVICE, 200, 'Object', 1],
    ['d2c-special-id', 'send', $SPECIAL_DEVICE, @ENQUEUED],
    ['d2c-empty-body', 'send', 'dev-1', @ENQUEUED],
    ['d2c-binary', 'send', 'dev-1', @ENQUEUED],
    ['d2c-prop-special', 'send', 'dev-1', @ENQUEUED],
    ['d2c-batch', 'batch', 'dev-1', @ENQUEUED],
    ['send-wrong-key', 'send', 'dev-1', 401, 'UnauthorizedError', 0],
    ['send-too-large', 'send', 'dev-1', 413, 'MessageTooLargeError', 0],
    ['send-disabled', 'send', 'dev-2', 404, 'DeviceNotFoundError', 0],
);


# Without the SDK there is nothing to test; on a CI machine that is a fault.

sub without_sdk($why) {
    plan skip_all => $why unless ($ENV{CI} // '') eq 'true';
    fail($why);
    done_testing;
    exit 1;
}


sub same_file($one, $other) {
    return -e $other
        && IoTHub::Simulator::Process::slurp($one)
        eq IoTHub::Simulator::Process::slurp($other);
}


# Installed next to the lock file, or, where that was not done, in build/.
# Returns the folder of the packages.

sub install_sdk() {
    for my $program (qw(node npm)) {
        qx($program --version 2>&1);
        without_sdk("$program is not installed") if $?;
    }

    return "$SDK/node_modules"
        if -e "$SDK/node_modules/.package-lock.json";

    make_path($BUILD);
    my $done = "$BUILD/node_modules/.package-lock.json";
    return "$BUILD/node_modules"
        if -e $done && same_file("$SDK/package-lock.json",
            "$BUILD/package-lock.json");

    copy("$SDK/$_", "$BUILD/$_") or die "$BUILD/$_: $!\n"
        for qw(package.json package-lock.json);
    my $install = 'npm ci --ignore-scripts --no-audit --no-fund';
    my $said    = qx(cd '$BUILD' && $install 2>&1);
    if ($?) {
        unlink "$BUILD/package-lock.json";
        diag $said;
        without_sdk('npm ci failed');
    }
    return "$BUILD/node_modules";
}


my $packages = install_sdk();

my $sim = IoTHub::Simulator::Process->start('--tls', '--hostname', HOST,
    '--policy', "webhook:$KEY", '--policy', "reader:$KEY:RegistryRead");

local %ENV = (
    %ENV,
    NODE_PATH           => $packages,
    NODE_EXTRA_CA_CERTS => $sim->{ca},
    HUB_HOST            => HOST,
    HUB_PORT            => $sim->{port},
    POLICY_KEY          => $KEY,
    OTHER_KEY           => $OTHER,
);
my $printed = qx(node '$SDK/drive.js');
is($?, 0, 'the SDK ran');

my $outcomes = decode_json($printed || '[]');
my @journal  = $sim->journal;
is(scalar @$outcomes, scalar @STEPS, 'as many outcomes as steps');
is(scalar @journal, scalar @STEPS, 'as many exchanges as steps');

my %outcome = map { $_->{step} => $_ } @$outcomes;
my %entry;


# The parts of a request that do not change from run to run.

sub normal_headers($list) {
    return [map {
        my ($name, $value) = @$_;
        $value = $value =~ s/\s.*//sr if $name =~ /^authorization\z/i;
        $value = $value =~ s/ \(.*//sr if $name =~ /^user-agent\z/i;
        $value = '-' if $name =~ /^request-id\z/i;
        [$name, $value];
    } @$list];
}


sub read_recording($file) {
    my ($head, $body) = split /\r\n\r\n/,
        IoTHub::Simulator::Process::slurp($file), 2;
    my ($line, @fields) = split /\r\n/, $head;
    my ($method, $uri) = split / /, $line;

    if ($head =~ /^transfer-encoding: chunked/im) {
        my $whole = '';
        while ($body =~ s/^([0-9a-f]+)\r\n//i && hex $1) {
            $whole .= substr $body, 0, hex $1, '';
            $body =~ s/^\r\n//;
        }
        $body = $whole;
    }

    return {
        method  => $method,
        uri     => $uri,
        headers => normal_headers([map { [split /: /, $_, 2] } @fields]),
        body    => $body // '',
    };
}


for my $i (0 .. $#STEPS) {
    my ($step, $op, $device, $status, $name, $accepted) = @{ $STEPS[$i] };
    my $outcome = $outcomes->[$i] // {};
    my $entry   = $entry{$step} = $journal[$i] // {};

    subtest $step => sub {
        is($outcome->{step}, $step, 'step');
        is($outcome->{name}, $name, 'what the SDK made of it');
        is($outcome->{ok} ? 1 : 0, $status < 300 ? 1 : 0, 'success')
            or diag explain $outcome;
        is($outcome->{status}, $status, 'the status it tells')
            if defined $outcome->{status};

        is($entry->{op}, $op, 'operation');
        is($entry->{device}, $device, 'device');
        is($entry->{status}, $status, 'status');
        is($entry->{accepted} ? 1 : 0, $accepted, 'accepted');
        is($entry->{sni}, HOST, 'SNI');

        my $file = "$SDK/wire/$step.txt";
        return unless -e $file;
        is_deeply({
            method  => $entry->{method},
            uri     => $entry->{uri},
            headers => normal_headers($entry->{header_list}),
            body    => $entry->{body},
        }, read_recording($file), 'the request as it was recorded');
    };
}

subtest 'recordings' => sub {
    my %step = map { $_->[0] => 1 } @STEPS;
    for my $file (glob "'$SDK/wire/*.txt'") {
        my ($name) = $file =~ m{([^/]+)\.txt\z};
        ok($step{$name}, "$name is a step");
    }
};


subtest 'identities, as the SDK reads them' => sub {
    my $body = sub ($step) { return $outcome{$step}{body} };

    my $created = $body->('registry-create-default');
    is($created->{status}, 'enabled', 'created');
    my $keys = $created->{authentication}{symmetricKey};
    like($keys->{$_}, qr{^[A-Za-z0-9+/]{43}=\z}, "$_ was made")
        for qw(primaryKey secondaryKey);
    is_deeply($body->('registry-get'), $created, 'got the same');

    is($body->('get-disabled')->{status}, 'disabled', 'disabled');
    is($body->('get-disabled')->{statusReason}, 'blocked', 'and why');
    is($body->('update-enable')->{status}, 'enabled', 'enabled');

    is($body->('registry-create-none')->{authentication}{type}, 'none',
        'no authentication');
    is($body->('registry-create-selfsigned')->{authentication}
        {x509Thumbprint}{primaryThumbprint}, '0' x 40, 'thumbprint');
    is($body->('registry-create-ca')->{authentication}{type},
        'certificateAuthority', 'authority');
    is($body->('registry-get-special-id')->{deviceId}, $SPECIAL,
        'an id with all that is legal');

    my $given = $body->('registry-create-sas-keys');
    is_deeply($given->{authentication}{symmetricKey},
        { primaryKey => $KEY, secondaryKey => $OTHER }, 'the given keys');
    is($given->{statusReason}, 'created by webhook', 'the given reason');

    ok($body->('registry-bulk-add')->{isSuccessful}, 'bulk');
    is($body->('get-bulk-added')->{status}, 'disabled', 'bulk: as told');
    like($outcome{'registry-bulk-update-etag'}{message},
        qr/PreconditionFailed/, 'bulk: another etag');
    is_deeply([map { $_->{deviceId} } @{ $body->('list')->{list} }],
        [$SPECIAL, 'dev-2'], 'list');
    like($outcome{'create-again'}{message}, qr/Conflict/,
        'an error\'s text is read');
};


subtest 'messages, as the hub stored them' => sub {
    my %message;
    for my $message (@{ $sim->control('GET', 'messages')->{data} }) {
        push @{ $message{ $message->{n} } }, $message;
    }
    my $stored = sub ($step) { return $message{ $entry{$step}{n} } // [] };

    is($stored->('d2c-plain')->[0]{body}, 'hello', 'plain');
    is($stored->('d2c-empty-body')->[0]{body}, '', 'empty');
    is($stored->('d2c-binary')->[0]{body}, "\x00\x01\xfe\xff", 'binary');
    is_deeply($stored->('send-too-large'), [], 'too large');

    my %full = (
        event        => 'temp',
        published_at => '2026-01-02T03:04:05.678Z',
    );
    my %system = (
        messageid       => 'm-1',
        correlationid   => 'c-1',
        userid          => 'particle',
        contenttype     => 'application/json',
        contentencoding => 'utf-8',
    );
    for my $step (qw(d2c-full-device-key d2c-full-policy-key)) {
        my $message = $stored->($step)->[0];
        is_deeply($message->{properties}, \%full, "$step: properties");
        is_deeply($message->{system}, { %system,
            to => '/devices/dev-1/messages/events' }, "$step: system");
    }
    is_deeply($stored->('d2c-all-system')->[0]{system}, { %system,
        to             => '/some/where',
        expiry         => '2030-01-01T00:00:00Z',
        ack            => 'none',
        'interface-id' => 'urn:azureiot:Security:SecurityAgent:1',
        'dt-subject'   => 'thermostat1',
    }, 'every system property');
    is_deeply($stored->('d2c-prop-special')->[0]{properties},
        { 'k!#$%&*+-.^_|~' => 'v a l u e; "q", {b}=1/2' },
        'special characters');
    is($stored->('d2c-special-id')->[0]{device}, $SPECIAL_DEVICE,
        'special device id');

    is_deeply([map { [@$_{qw(body properties)}] } @{ $stored->('d2c-batch')
        }], [
        ['{"event":"temp","data":"23.5"}', \%full],
        ["\x00\x01\xfe\xff", {}],
        ['third', { a => '1', b => '2' }],
    ], 'batch');
};


subtest 'tokens' => sub {
    my %key = (
        'registry-create-default' => ['primary', 'webhook', HOST],
        'd2c-plain' => ['device', undef, HOST . '%2Fdevices%2Fdev-1'],
        'd2c-full-policy-key' => ['primary', 'webhook',
            HOST . '%2Fdevices%2Fdev-1'],
        'd2c-special-id' => ['primary', 'webhook', HOST . '%2Fdevices%2F'
            . 'A-.%3A%2B%25_%23%2a%3F%21%28%29%2C%40%24%27z'],
        'send-other-device' => [undef, undef,
            HOST . '%2Fdevices%2Fdev-2'],
        'send-wrong-key' => [undef, 'webhook',
            HOST . '%2Fdevices%2Fdev-1'],
    );
    for my $step (sort keys %key) {
        my $token = $entry{$step}{token};
        is_deeply([@$token{qw(key skn sr)}], $key{$step}, $step);
        cmp_ok($token->{se}, '>', time, "$step: se");
    }
};


is($sim->stop, 0, 'the simulator ends');
done_testing;
