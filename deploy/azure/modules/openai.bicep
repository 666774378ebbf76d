// The account and its model deployments.

import { deploymentType } from '../types.bicep'

param name string
param location string
param tags object
param deployments deploymentType[]
param allowedSubnetIds string[]
param publicNetworkAccess 'Enabled' | 'Disabled'
param defenderForAI ('Enabled' | 'Disabled')?

resource account 'Microsoft.CognitiveServices/accounts@2024-10-01' = {
  name: name
  location: location
  tags: tags
  kind: 'OpenAI'
  sku: {
    name: 'S0'
  }
  properties: {
    // Calls with an identity need a name of the account's own.
    customSubDomainName: name
    // There are no keys to leak, to paste into a script, or to get round the gateway with.
    disableLocalAuth: true
    publicNetworkAccess: publicNetworkAccess
    networkAcls: {
      defaultAction: empty(allowedSubnetIds) ? 'Allow' : 'Deny'
      virtualNetworkRules: [for id in allowedSubnetIds: {
        id: id
      }]
    }
  }
}

// The service takes one change to an account's deployments at a time.
@batchSize(1)
resource models 'Microsoft.CognitiveServices/accounts/deployments@2024-10-01' = [for deployment in deployments: {
  parent: account
  name: deployment.name
  tags: tags
  sku: {
    name: deployment.sku
    capacity: deployment.capacity
  }
  properties: {
    model: {
      format: 'OpenAI'
      name: deployment.model
      version: deployment.version
    }
    raiPolicyName: deployment.?raiPolicyName ?? 'Microsoft.DefaultV2'
    versionUpgradeOption: deployment.?versionUpgradeOption ?? 'OnceCurrentVersionExpired'
  }
}]

resource defender 'Microsoft.CognitiveServices/accounts/defenderForAISettings@2024-10-01' = if (defenderForAI != null) {
  parent: account
  name: 'Default'
  properties: {
    state: defenderForAI!
  }
  dependsOn: [models]
}

output id string = account.id
output name string = account.name
output endpoint string = account.properties.endpoint
